/* bytes.h - unaligned big-endian loads and stores.
 *
 * Every helper touches exactly the bytes its name says; the caller has checked that they are there. */
#ifndef WEFT_BYTES_H
#define WEFT_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t wn_get16(const uint8_t *from)
{
    return (uint16_t)(((unsigned)from[0] << 8) | from[1]);
}

static inline uint32_t wn_get32(const uint8_t *from)
{
    return ((uint32_t)from[0] << 24) | ((uint32_t)from[1] << 16) | ((uint32_t)from[2] << 8) | from[3];
}

static inline void wn_put16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)(value & 0xffu);
}

static inline void wn_put32(uint8_t *to, uint32_t value)
{
    wn_put16(to, (uint16_t)(value >> 16));
    wn_put16(to + 2, (uint16_t)(value & 0xffffu));
}

/* Loads in the byte order of the machine, for code that does not care which it is. */
static inline uint16_t wn_load_u16(const uint8_t *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline uint32_t wn_load_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline uint64_t wn_load_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

#endif
