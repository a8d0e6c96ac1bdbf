/* salsa_x86.c - 16 blocks of Salsa20 side by side, one in each lane of AVX-512 registers.
 *
 * The lanes may belong to different datagrams, so that short ones fill the registers as well as long
 * ones do. Ref: D. J. Bernstein, "Salsa20 specification"; checked against libsodium by tests.
 */
#include "crypto.h"

#if WN_SALSA_X86
#include <immintrin.h>

#include "bytes.h"

#define TARGET __attribute__((target("avx512f,avx512bw")))
/* a ^= rotl(b + c, n) */
#define STEP(a, b, c, n) a = _mm512_xor_si512(a, _mm512_rol_epi32(_mm512_add_epi32(b, c), n))
#define QUARTER(a, b, c, d) \
    STEP(b, a, d, 7);       \
    STEP(c, b, a, 9);       \
    STEP(d, c, b, 13);      \
    STEP(a, d, c, 18)

/* Rows of one word each become rows of one block each. */
TARGET static inline void transpose(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* r[4g + k], 128-bit part p: words 4g..4g+3 of block 4p + k */
    for (int k = 0; k < 4; k++) {
        t[k] = _mm512_shuffle_i32x4(r[k], r[4 + k], 0x44);
        t[4 + k] = _mm512_shuffle_i32x4(r[k], r[4 + k], 0xee);
        t[8 + k] = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0x44);
        t[12 + k] = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0xee);
    }
    for (int k = 0; k < 4; k++) {
        r[k] = _mm512_shuffle_i32x4(t[k], t[8 + k], 0x88);
        r[4 + k] = _mm512_shuffle_i32x4(t[k], t[8 + k], 0xdd);
        r[8 + k] = _mm512_shuffle_i32x4(t[4 + k], t[12 + k], 0x88);
        r[12 + k] = _mm512_shuffle_i32x4(t[4 + k], t[12 + k], 0xdd);
    }
}

TARGET void wn_salsa20_avx512(const uint8_t key[WN_KEY_LEN], const wn_salsa_lane lanes[16])
{
    static const uint32_t sigma[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    static const int key_at[8] = {1, 2, 3, 4, 11, 12, 13, 14};
    _Alignas(64) uint32_t nonce0[16];
    _Alignas(64) uint32_t nonce1[16];
    _Alignas(64) uint32_t counter[16];
    __m512i s[16];
    __m512i x[16];
    for (int i = 0; i < 16; i++) {
        nonce0[i] = wn_load_u32(lanes[i].nonce);
        nonce1[i] = wn_load_u32(lanes[i].nonce + 4);
        counter[i] = lanes[i].counter;
    }
    for (int i = 0; i < 4; i++)
        s[5 * i] = _mm512_set1_epi32((int)sigma[i]);
    for (int i = 0; i < 8; i++)
        s[key_at[i]] = _mm512_set1_epi32((int)wn_load_u32(key + 4 * i));
    s[6] = _mm512_load_si512(nonce0);
    s[7] = _mm512_load_si512(nonce1);
    s[8] = _mm512_load_si512(counter);
    s[9] = _mm512_setzero_si512();
    for (int i = 0; i < 16; i++)
        x[i] = s[i];
    for (int round = 0; round < 10; round++) {
        QUARTER(x[0], x[4], x[8], x[12]);
        QUARTER(x[5], x[9], x[13], x[1]);
        QUARTER(x[10], x[14], x[2], x[6]);
        QUARTER(x[15], x[3], x[7], x[11]);
        QUARTER(x[0], x[1], x[2], x[3]);
        QUARTER(x[5], x[6], x[7], x[4]);
        QUARTER(x[10], x[11], x[8], x[9]);
        QUARTER(x[15], x[12], x[13], x[14]);
    }
    for (int i = 0; i < 16; i++)
        x[i] = _mm512_add_epi32(x[i], s[i]);
    transpose(x);
    for (int i = 0; i < 16; i++) {
        const wn_salsa_lane *lane = &lanes[i];
        if (lane->mask == ~0ull) {
            _mm512_storeu_si512(lane->dst, _mm512_xor_si512(x[i], _mm512_loadu_si512(lane->dst)));
        } else if (lane->mask) {
            __m512i text = _mm512_maskz_loadu_epi8(lane->mask, lane->dst);
            _mm512_mask_storeu_epi8(lane->dst, lane->mask, _mm512_xor_si512(x[i], text));
        }
        if (lane->head)
            _mm256_storeu_si256((__m256i *)(void *)lane->head, _mm512_castsi512_si256(x[i]));
    }
}
#endif
