/* Every implementation of this CPU against a byte-wise sum; chaining; incremental update.
 * Input: offset (1) | start sum (2) | split (1) | repeat (1) | data */
#include "fuzz.h"

static void check_backends(const uint8_t *data, size_t size, uint32_t start)
{
    static const char *const names[] = {"portable", "avx2", "avx512"};
    const uint32_t expected = slow_sum(data, size, start);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint32_t sum = start;
        const int code = wn_csum_add_by(names[i], data, size, &sum);
        CHECK(code == WN_OK || (code == WN_ERR_RANGE && i > 0));
        CHECK(code != WN_OK || sum == expected);
    }
    CHECK(wn_csum_add(data, size, start) == expected);
    CHECK(wn_csum_add_portable(data, size, start) == expected);
}

static void check_update(const uint8_t *data, size_t size, uint16_t after)
{
    uint8_t *changed = exact_copy(data, size);
    const uint16_t before_csum = (uint16_t)(slow_sum(data, size, 0) ^ 0xffff);
    put16(changed, after);
    const uint16_t updated = wn_csum_update16(before_csum, get16(data), after);
    const uint16_t expected = (uint16_t)(slow_sum(changed, size, 0) ^ 0xffff);
    /* All-zero data is the one case with two right answers. */
    CHECK(updated == expected || (expected == 0xffff && updated == 0));
    free(changed);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_size)
{
    source from = {input, input_size};
    const size_t offset = take8(&from) % 64;
    const uint32_t start = take16(&from) * 65537u;
    const size_t split_at = take8(&from);
    const size_t repeat = 1 + take8(&from) % 64;
    const size_t unit = from.left;
    if (unit * repeat > 300000)
        return 0;
    const size_t size = unit * repeat;
    uint8_t *buffer = malloc(offset + size + 1);
    CHECK(buffer != NULL);
    for (size_t i = 0; i < repeat && unit > 0; i++)
        memcpy(buffer + offset + i * unit, from.at, unit);
    uint8_t *tight = exact_copy(buffer + offset, size);
    check_backends(tight, size, start);
    check_backends(buffer + offset, size, start);

    const size_t split = 2 * split_at < size ? 2 * split_at : size & ~(size_t)1;
    const uint32_t first = wn_csum_add(tight, split, start);
    CHECK(wn_csum_add(tight + split, size - split, first) == slow_sum(tight, size, start));
    CHECK(wn_csum_fold(start) == slow_sum(NULL, 0, start));
    if (size >= 2)
        check_update(tight, size, (uint16_t)start);
    free(tight);
    free(buffer);
    return 0;
}
