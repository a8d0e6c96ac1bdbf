/* fuzz.h - what every target needs: input to draw from, checks that end the run, slow oracles.
 *
 * The oracles share no code with native/src: they add word by word and trust no view. */
#ifndef WEFT_FUZZ_H
#define WEFT_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weft_native.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

/* A copy without a byte to spare, so that the address sanitizer sees each step past its end. */
static inline uint8_t *exact_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    CHECK(copy != NULL);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

/* The input as a source of choices; zeros when it has run dry. */
typedef struct source {
    const uint8_t *at;
    size_t left;
} source;

static inline uint8_t take8(source *from)
{
    if (from->left == 0)
        return 0;
    from->left--;
    return *from->at++;
}

static inline uint16_t take16(source *from)
{
    const unsigned high = take8(from);
    return (uint16_t)(high << 8 | take8(from));
}

static inline const uint8_t *take_bytes(source *from, size_t want, size_t *got)
{
    const uint8_t *at = from->at;
    *got = want < from->left ? want : from->left;
    from->at += *got;
    from->left -= *got;
    return at;
}

static inline uint16_t get16(const uint8_t *at)
{
    return (uint16_t)((unsigned)at[0] << 8 | at[1]);
}

static inline void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8 & 0xff);
    at[1] = (uint8_t)(value & 0xff);
}

/* RFC 1071, word by word; 0..0xffff, not complemented. */
static inline uint32_t slow_sum(const uint8_t *data, size_t size, uint32_t start)
{
    uint64_t sum = start;
    for (size_t i = 0; i + 1 < size; i += 2)
        sum += (uint32_t)data[i] << 8 | data[i + 1];
    if (size % 2)
        sum += (uint32_t)data[size - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

/* Sum of a whole TCP, UDP or ICMPv6 message with its pseudo header; 0xffff if the checksum is right. */
static inline uint32_t slow_l4_sum(const uint8_t *addrs, size_t addrs_len, uint8_t proto, const uint8_t *l4,
                                   size_t l4_len)
{
    return slow_sum(l4, l4_len, slow_sum(addrs, addrs_len, proto + (uint32_t)l4_len));
}

#endif
