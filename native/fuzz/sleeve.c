/* Any bytes behind a sender name: they split into records, or end in an error that is true; the
 * records written again are the bytes read.
 * Input: records */
#include "fuzz.h"

static void check_special(const uint8_t *frame, size_t size)
{
    static const uint8_t zeros[14];
    uint8_t *copy = exact_copy(frame, size);
    int all_zero = 7;
    const int kind = wn_sleeve_special(copy, size, &all_zero);
    CHECK(kind == wn_sleeve_special(copy, size, NULL));
    const int special = size >= 14 && memcmp(copy, zeros, 14) == 0;
    CHECK((kind != WN_SPECIAL_NONE) == special);
    CHECK((kind == WN_SPECIAL_HEARTBEAT) == (special && size == 22));
    CHECK((kind == WN_SPECIAL_FRAG_TEST) == (special && size == 60001));
    int zero = special;
    for (size_t i = 0; i < size; i++)
        zero = zero && copy[i] == 0;
    CHECK(all_zero == zero);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    uint8_t *data = exact_copy(input, size);
    wn_record record;
    size_t at = 0;
    int code = 0;
    check_special(data, size);
    while ((code = wn_sleeve_next(data + at, size - at, &record)) == 1) {
        uint8_t header[WN_RECORD_LEN];
        CHECK(record.src == data + at && record.dst == data + at + 6 && record.frame == data + at + 14);
        CHECK(record.next == 14 + record.frame_len && record.next <= size - at);
        wn_sleeve_put_record(header, record.src, record.dst, (uint16_t)record.frame_len);
        CHECK(memcmp(header, data + at, sizeof header) == 0);
        check_special(record.frame, record.frame_len);
        at += record.next;
    }
    const size_t left = size - at;
    if (code == 0) {
        CHECK(left == 0);
    } else if (code == WN_ERR_TRAILING) {
        CHECK(left >= 1 && left <= 13);
    } else {
        CHECK(code == WN_ERR_TRUNCATED && left >= 14 && get16(data + at + 12) > left - 14);
    }
    free(data);
    return 0;
}
