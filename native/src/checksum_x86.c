/* checksum_x86.c - raw sums with AVX2 and AVX-512BW; the choice between them is checksum.c's.
 *
 * A multiply-add of 16-bit words with ones is the cheapest way to widen: one instruction adds
 * neighbours into 32-bit lanes. It is a signed one, so each word w enters as w - 0x8000 (one xor
 * that takes its operand from memory) and the bias comes back as one multiplication at the end.
 * Three instructions a vector; masking and shifting the halves apart takes five.
 *
 * Lanes: a chunk of 64 KiB has 2^15 words of magnitude <= 2^15, so even the sum over all lanes fits
 * 32 bits signed and the whole horizontal addition stays in 32 bits. */
#include "checksum.h"

#ifdef WN_CSUM_X86

#include <immintrin.h>

#define WN_CHUNK 65536u
#define WN_BIAS 0x8000u

/* Add up the eight lanes; the chunk limit keeps that within an int32_t. */
__attribute__((target("avx2"))) static inline int32_t add_lanes(__m256i v)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

__attribute__((target("avx2"))) static inline __m256i add_words256(__m256i sum, const uint8_t *data)
{
    const __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)data);
    const __m256i centred = _mm256_xor_si256(words, _mm256_set1_epi16((short)-0x8000));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(centred, _mm256_set1_epi16(1)));
}

/* len is a multiple of 32 and at most WN_CHUNK. */
__attribute__((target("avx2"))) static uint64_t chunk_avx2(const uint8_t *data, size_t len)
{
    __m256i sum0 = _mm256_setzero_si256();
    __m256i sum1 = sum0;
    __m256i sum2 = sum0;
    __m256i sum3 = sum0;
    size_t at = 0;
    for (; len - at >= 128; at += 128) {
        sum0 = add_words256(sum0, data + at);
        sum1 = add_words256(sum1, data + at + 32);
        sum2 = add_words256(sum2, data + at + 64);
        sum3 = add_words256(sum3, data + at + 96);
    }
    for (; at < len; at += 32) {
        sum0 = add_words256(sum0, data + at);
    }
    sum0 = _mm256_add_epi32(_mm256_add_epi32(sum0, sum1), _mm256_add_epi32(sum2, sum3));
    return (uint64_t)((int64_t)add_lanes(sum0) + (int64_t)(len / 2) * (int64_t)WN_BIAS);
}

__attribute__((target("avx2"))) uint64_t wn_csum_raw_avx2(const uint8_t *data, size_t len)
{
    uint64_t sum = 0;
    while (len >= 32) {
        const size_t take = len < WN_CHUNK ? len & ~(size_t)31 : WN_CHUNK;
        sum += chunk_avx2(data, take);
        data += take;
        len -= take;
    }
    return wn_csum_raw_tail(data, len, sum);
}

__attribute__((target("avx512f,avx512bw"))) static inline __m512i add_words512(__m512i sum, __m512i words)
{
    const __m512i centred = _mm512_xor_si512(words, _mm512_set1_epi16((short)-0x8000));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(centred, _mm512_set1_epi16(1)));
}

/* len is at most WN_CHUNK; the missing bytes of the last vector count as zero. */
__attribute__((target("avx512f,avx512bw"))) static uint64_t chunk_avx512(const uint8_t *data, size_t len)
{
    __m512i sum0 = _mm512_setzero_si512();
    __m512i sum1 = sum0;
    __m512i sum2 = sum0;
    __m512i sum3 = sum0;
    size_t at = 0;
    for (; len - at >= 256; at += 256) {
        sum0 = add_words512(sum0, _mm512_loadu_si512(data + at));
        sum1 = add_words512(sum1, _mm512_loadu_si512(data + at + 64));
        sum2 = add_words512(sum2, _mm512_loadu_si512(data + at + 128));
        sum3 = add_words512(sum3, _mm512_loadu_si512(data + at + 192));
    }
    for (; len - at >= 64; at += 64) {
        sum0 = add_words512(sum0, _mm512_loadu_si512(data + at));
    }
    size_t vectors = at / 64;
    if (at < len) {
        /* Masked-out bytes are not read, so this may end at the edge of a page. */
        const __mmask64 mask = (__mmask64)(~0ull >> (64 - (len - at)));
        sum1 = add_words512(sum1, _mm512_maskz_loadu_epi8(mask, data + at));
        vectors++;
    }
    sum0 = _mm512_add_epi32(_mm512_add_epi32(sum0, sum1), _mm512_add_epi32(sum2, sum3));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(sum0), _mm512_extracti64x4_epi64(sum0, 1));
    return (uint64_t)((int64_t)add_lanes(half) + (int64_t)(vectors * 32) * (int64_t)WN_BIAS);
}

__attribute__((target("avx512f,avx512bw"))) uint64_t wn_csum_raw_avx512(const uint8_t *data, size_t len)
{
    uint64_t sum = 0;
    while (len > 0) {
        const size_t take = len < WN_CHUNK ? len : WN_CHUNK;
        sum += chunk_avx512(data, take);
        data += take;
        len -= take;
    }
    return sum;
}

#else
/* ISO C wants something in every translation unit. */
typedef int wn_checksum_x86_is_empty;
#endif
