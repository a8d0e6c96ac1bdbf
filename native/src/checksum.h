/* checksum.h - what checksum.c and its vectorised halves agree on.
 *
 * A *raw* sum adds the 16-bit words of a buffer in the byte order of the machine: the sum of the
 * swapped words is the swapped sum (RFC 1071 section 2 B), so the one swap is left to the end. */
#ifndef WEFT_CHECKSUM_H
#define WEFT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include "bytes.h"

/* The raw sum of len bytes, congruent modulo 65535 and 0 only if every byte is 0; not folded. */
typedef uint64_t (*wn_csum_raw_fn)(const uint8_t *data, size_t len);

uint64_t wn_csum_raw_portable(const uint8_t *data, size_t len);

#if defined(__x86_64__)
#define WN_CSUM_X86 1
uint64_t wn_csum_raw_avx2(const uint8_t *data, size_t len);
uint64_t wn_csum_raw_avx512(const uint8_t *data, size_t len);
#endif

/* a + b with the carry put back in: ones-complement addition of 64-bit words. */
static inline uint64_t wn_csum_add64(uint64_t a, uint64_t b)
{
    a += b;
    return a + (a < b);
}

/* Up to 33 bits to 16. Zero only for zero, so that the folds of two congruent sums are equal. */
static inline uint16_t wn_csum_fold33(uint64_t sum)
{
    sum = (sum & 0xffffu) + (sum >> 16); /* at most 0x2fffe */
    sum = (sum & 0xffffu) + (sum >> 16); /* at most 0x10001 */
    return (uint16_t)((sum & 0xffffu) + (sum >> 16));
}

/* 64 bits to 16, in the same way. */
static inline uint16_t wn_csum_fold64(uint64_t sum)
{
    return wn_csum_fold33((sum & 0xffffffffu) + (sum >> 32));
}

/* The last up to 31 bytes: of a buffer, or of what a wide loop left over. */
static inline uint64_t wn_csum_raw_tail(const uint8_t *data, size_t len, uint64_t sum)
{
    if (len & 16u) {
        sum = wn_csum_add64(sum, wn_load_u64(data));
        sum = wn_csum_add64(sum, wn_load_u64(data + 8));
        data += 16;
    }
    if (len & 8u) {
        sum = wn_csum_add64(sum, wn_load_u64(data));
        data += 8;
    }
    uint64_t rest = 0;
    if (len & 4u) {
        rest += wn_load_u32(data);
        data += 4;
    }
    if (len & 2u) {
        rest += wn_load_u16(data);
        data += 2;
    }
    if (len & 1u) {
        const uint8_t last[2] = {data[0], 0};
        rest += wn_load_u16(last);
    }
    return wn_csum_add64(sum, rest);
}

#endif
