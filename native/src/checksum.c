/* checksum.c - the Internet checksum: full, incremental, and the choice of an implementation.
 *
 * Buffers below WN_CSUM_WIDE bytes (headers) never leave the scalar code: an indirect call and the
 * horizontal addition of a vector cost more than their few loads. Above it one pointer, set before
 * main() and never again, leads to the widest code the CPU has.
 *
 * Every sum that leaves this file is folded to 16 bits, hence canonical: two ways to the same sum
 * give the same number, and 0 means that every byte was 0.
 *
 * Ref: RFC 1071, RFC 1624. */
#include "checksum.h"

#include <string.h>

#include "weft_native.h"

#define WN_CSUM_WIDE 128u

uint64_t wn_csum_raw_portable(const uint8_t *data, size_t len)
{
    uint64_t sum0 = 0;
    uint64_t sum1 = 0;
    uint64_t sum2 = 0;
    uint64_t sum3 = 0;
    /* Four chains, because each add-with-carry waits for the one before it. */
    while (len >= 32) {
        sum0 = wn_csum_add64(sum0, wn_load_u64(data));
        sum1 = wn_csum_add64(sum1, wn_load_u64(data + 8));
        sum2 = wn_csum_add64(sum2, wn_load_u64(data + 16));
        sum3 = wn_csum_add64(sum3, wn_load_u64(data + 24));
        data += 32;
        len -= 32;
    }
    sum0 = wn_csum_add64(wn_csum_add64(sum0, sum1), wn_csum_add64(sum2, sum3));
    return wn_csum_raw_tail(data, len, sum0);
}

typedef struct wn_csum_backend_entry {
    const char *name;
    wn_csum_raw_fn raw;
} wn_csum_backend_entry;

static const wn_csum_backend_entry PORTABLE = {"portable", wn_csum_raw_portable};
#ifdef WN_CSUM_X86
static const wn_csum_backend_entry AVX2 = {"avx2", wn_csum_raw_avx2};
static const wn_csum_backend_entry AVX512 = {"avx512", wn_csum_raw_avx512};
#endif

/* Written once by the constructor below, before any thread of ours exists. */
static const wn_csum_backend_entry *chosen = &PORTABLE;

/* The named implementation if this CPU can run it, else NULL. */
static const wn_csum_backend_entry *find_backend(const char *name)
{
#ifdef WN_CSUM_X86
    __builtin_cpu_init();
    if (strcmp(name, AVX512.name) == 0) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? &AVX512 : NULL;
    }
    if (strcmp(name, AVX2.name) == 0) {
        return __builtin_cpu_supports("avx2") ? &AVX2 : NULL;
    }
#endif
    return strcmp(name, PORTABLE.name) == 0 ? &PORTABLE : NULL;
}

__attribute__((constructor)) static void choose_backend(void)
{
    static const char *const order[] = {"avx512", "avx2", "portable"};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        const wn_csum_backend_entry *found = find_backend(order[i]);
        if (found != NULL) {
            chosen = found;
            return;
        }
    }
}

/* A raw sum and a sum of big-endian words, added and folded. */
static uint16_t finish(uint64_t raw, uint32_t sum)
{
    uint16_t folded = wn_csum_fold64(raw);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    folded = __builtin_bswap16(folded);
#endif
    return wn_csum_fold33((uint64_t)folded + sum);
}

uint32_t wn_csum_add(const uint8_t *data, size_t len, uint32_t sum)
{
    if (len < 32) {
        return finish(wn_csum_raw_tail(data, len, 0), sum);
    }
    if (len < WN_CSUM_WIDE) {
        return finish(wn_csum_raw_portable(data, len), sum);
    }
    return finish(chosen->raw(data, len), sum);
}

uint32_t wn_csum_add_portable(const uint8_t *data, size_t len, uint32_t sum)
{
    return finish(wn_csum_raw_portable(data, len), sum);
}

int wn_csum_add_by(const char *backend, const uint8_t *data, size_t len, uint32_t *sum)
{
    const wn_csum_backend_entry *found = find_backend(backend);
    if (found == NULL) {
        return WN_ERR_RANGE;
    }
    *sum = finish(found->raw(data, len), *sum);
    return WN_OK;
}

const char *wn_csum_backend(void)
{
    return chosen->name;
}

uint16_t wn_csum_fold(uint32_t sum)
{
    return wn_csum_fold33(sum);
}

/* Protocol and length are the same in both pseudo headers, once padding is left out. */
static uint32_t pseudo(const uint8_t *addrs, size_t addrs_len, uint8_t proto, uint32_t l4_len)
{
    const uint32_t fixed = (uint32_t)proto + (l4_len >> 16) + (l4_len & 0xffffu);
    return finish(wn_csum_raw_portable(addrs, addrs_len), fixed);
}

uint32_t wn_csum_pseudo4(const uint8_t *addrs, uint8_t proto, uint32_t l4_len)
{
    return pseudo(addrs, 8, proto, l4_len);
}

uint32_t wn_csum_pseudo6(const uint8_t *addrs, uint8_t proto, uint32_t l4_len)
{
    return pseudo(addrs, 32, proto, l4_len);
}

uint16_t wn_csum_update16(uint16_t csum, uint16_t before, uint16_t after)
{
    /* HC' = ~(~HC + ~m + m') */
    const uint64_t sum = (uint64_t)(csum ^ 0xffffu) + (before ^ 0xffffu) + after;
    return (uint16_t)(wn_csum_fold33(sum) ^ 0xffffu);
}

void wn_ip4_set_csum(uint8_t *ip, size_t header_len)
{
    if (header_len < 20) {
        return;
    }
    wn_put16(ip + 10, 0);
    wn_put16(ip + 10, (uint16_t)(wn_csum_add(ip, header_len, 0) ^ 0xffffu));
}
