/* Too-big answers to any frame: what is built is a right and complete ICMP message about that frame,
 * never one about an ICMP error or to a group.
 * Input: mtu (2) | room (2) | frame */
#include "fuzz.h"

static void check4(const uint8_t *frame, const uint8_t *out, size_t size, uint16_t mtu)
{
    const uint8_t *ip = out + 14;
    const uint8_t *icmp = ip + 20;
    const uint8_t *inner = frame + 14;
    const size_t total = get16(ip + 2);
    CHECK(get16(out + 12) == 0x0800 && ip[0] == 0x45 && ip[1] == inner[1]);
    CHECK(size == (14 + total < 60 ? 60 : 14 + total) && size <= 110);
    CHECK(ip[9] == 1 && slow_sum(ip, 20, 0) == 0xffff);
    CHECK(memcmp(ip + 12, inner + 16, 4) == 0 && memcmp(ip + 16, inner + 12, 4) == 0);
    CHECK(icmp[0] == 3 && icmp[1] == 4 && get16(icmp + 4) == 0 && get16(icmp + 6) == mtu);
    CHECK(slow_sum(icmp, total - 20, 0) == 0xffff);
    CHECK(memcmp(icmp + 8, inner, total - 28) == 0);
    CHECK(total - 28 <= (inner[0] & 15u) * 4u + 8u);
    CHECK((get16(inner + 6) & 0x1fff) == 0);
    CHECK(ip[16] != 0 && ip[16] != 127 && (ip[16] & 0xf0) != 224);
    if (inner[9] == 1) {
        const uint8_t type = inner[(inner[0] & 15) * 4];
        CHECK(type != 3 && type != 4 && type != 5 && type != 11 && type != 12);
    }
}

static void check6(const uint8_t *frame, const uint8_t *out, size_t size, uint32_t mtu)
{
    size_t l3 = 14;
    while (get16(frame + l3 - 2) != 0x86dd)
        l3 += 4;
    CHECK(l3 <= 22 && memcmp(frame + 12, out + 12, l3 - 12) == 0);
    const uint8_t *ip = out + l3;
    const uint8_t *icmp = ip + 40;
    const uint8_t *inner = frame + l3;
    const size_t total = 40u + get16(ip + 4);
    CHECK(size == l3 + total && total <= 1280 && total >= 88);
    CHECK(ip[0] == 0x60 && ip[6] == 58 && ip[7] == 64 && ip[24] != 0xff);
    CHECK(memcmp(ip + 8, inner + 24, 16) == 0 && memcmp(ip + 24, inner + 8, 16) == 0);
    CHECK(icmp[0] == 2 && icmp[1] == 0 && get16(icmp + 4) == mtu >> 16 && get16(icmp + 6) == (mtu & 0xffff));
    CHECK(slow_l4_sum(ip + 8, 32, 58, icmp, total - 40) == 0xffff);
    CHECK(memcmp(icmp + 8, inner, total - 48) == 0);
    CHECK(inner[6] != 58 || (inner[40] & 0x80) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_size)
{
    source from = {data, data_size};
    const uint16_t mtu = take16(&from);
    const size_t cap = take16(&from) % 2048;
    const size_t size = from.left;
    uint8_t *frame = exact_copy(from.at, size);
    uint8_t *out = malloc(cap ? cap : 1);
    CHECK(out != NULL);
    size_t made = wn_icmp4_too_big(frame, size, mtu, out, cap);
    CHECK(made <= cap && (made == 0 || made >= 60));
    if (made) {
        CHECK(memcmp(out, frame + 6, 6) == 0 && memcmp(out + 6, frame, 6) == 0);
        CHECK((out[0] & 1) == 0 && (out[6] & 1) == 0);
        check4(frame, out, made, mtu);
        CHECK(wn_icmp4_too_big(out, made, mtu, out, cap) == 0); /* no answer to an answer */
    }
    made = wn_icmp6_too_big(frame, size, mtu * 3u, out, cap);
    CHECK(made <= cap && (made == 0 || made >= 60));
    if (made) {
        CHECK(memcmp(out, frame + 6, 6) == 0 && memcmp(out + 6, frame, 6) == 0);
        CHECK((out[0] & 1) == 0 && (out[6] & 1) == 0);
        check6(frame, out, made, mtu * 3u);
        CHECK(wn_icmp6_too_big(out, made, mtu, out, cap) == 0);
    }
    free(out);
    free(frame);
    return 0;
}
