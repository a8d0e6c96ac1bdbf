/* Fragments of any frame fit the mtu, carry right headers and join to the packet they were cut from.
 * Input: mtu (2) | frame */
#include "fuzz.h"

/* Piece `index` continues at byte *at of the payload of the IPv4 frame. */
static void check_piece(const uint8_t *frame, uint32_t total, const uint8_t *piece, size_t size, uint16_t mtu,
                        int last, uint32_t *at)
{
    const uint8_t *ip = piece + 14;
    const uint8_t *whole = frame + 14;
    const uint32_t header = (whole[0] & 15u) * 4u;
    const uint32_t length = get16(ip + 2);
    const uint16_t word = get16(ip + 6);
    const uint16_t whole_word = get16(whole + 6);
    CHECK(memcmp(piece, frame, 14) == 0);
    CHECK(length >= header && length <= mtu && size == (14 + length < 60 ? 60 : 14 + length));
    for (size_t i = 14 + length; i < size; i++)
        CHECK(piece[i] == 0);
    CHECK(memcmp(ip, whole, 2) == 0 && memcmp(ip + 4, whole + 4, 2) == 0);
    CHECK(memcmp(ip + 8, whole + 8, 2) == 0 && memcmp(ip + 12, whole + 12, header - 12) == 0);
    CHECK((word & 0x1fffu) == (whole_word & 0x1fffu) + *at / 8u);
    CHECK((word & 0xe000u) == (last ? whole_word & 0xe000u : (whole_word & 0xe000u) | 0x2000u));
    CHECK(last || (length - header) % 8 == 0);
    CHECK(length - header <= total - header - *at);
    CHECK(memcmp(ip + header, whole + header + *at, length - header) == 0);
    *at += length - header;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_size)
{
    source from = {data, data_size};
    const uint16_t mtu = take16(&from);
    const size_t size = from.left;
    uint8_t *frame = exact_copy(from.at, size);
    const int pieces = wn_ip4_fragment_count(frame, size, mtu);
    const size_t cap = 14u + (mtu > 46 ? mtu : 46u);
    uint8_t *out = malloc(cap);
    CHECK(out != NULL);
    CHECK(pieces == WN_ERR_RANGE || pieces >= 1);
    CHECK(wn_ip4_fragment_build(frame, size, mtu, -1, out, cap) == WN_ERR_RANGE);
    CHECK(wn_ip4_fragment_build(frame, size, mtu, pieces < 0 ? 0 : pieces, out, cap) == WN_ERR_RANGE);
    if (pieces > 0) {
        const uint32_t said = get16(frame + 16);
        const uint32_t total = said ? said : (uint32_t)size - 14;
        const uint32_t header = (frame[14] & 15u) * 4u;
        uint32_t at = 0;
        for (int i = 0; i < pieces; i++) {
            memset(out, 0xa5, cap);
            const int made = wn_ip4_fragment_build(frame, size, mtu, i, out, cap);
            CHECK(made >= 60 && (size_t)made <= cap);
            check_piece(frame, total, out, (size_t)made, mtu, i + 1 == pieces, &at);
            CHECK(pieces == 1 || slow_sum(out + 14, header, 0) == 0xffff);
            CHECK(wn_ip4_fragment_build(frame, size, mtu, i, out, (size_t)made - 1) == WN_ERR_RANGE);
        }
        CHECK(header + at == total);
        CHECK(pieces == 1 || (total > mtu && (get16(frame + 20) & 0x4000) == 0));
    }
    free(out);
    free(frame);
    return 0;
}
