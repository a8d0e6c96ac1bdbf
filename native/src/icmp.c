/* icmp.c - the answer to a frame that is too big: ICMP "fragmentation needed", ICMPv6 "packet too big".
 *
 * The answer pretends to come from the destination itself, MAC included, so it needs no address of
 * ours and learns the destination's MAC where it passes (spec: sleeve 8.4).
 *
 *     | dst = its src MAC | src = its dst MAC | tags, type | IP 20 / 40 | ICMP 8 | quote |
 *
 * Weave answers without looking; we keep to the RFCs' "must not", which on the wire only means silence.
 * Never quoted: Ethernet padding.
 *
 * Ref: Weave Net 2.8 router/sleeve.go (handleFragmentation), RFC 792, RFC 1122 3.2.2, RFC 1191 4,
 * RFC 4443 2.4 and 3.2. */
#include "bytes.h"
#include "weft_native.h"

#define FRAME_MIN 60u
#define HOP_LIMIT 64u

#define IP4_LEN 20u
#define PROTO_ICMP4 1u
#define ICMP4_LEN 8u
#define ICMP4_UNREACHABLE 3u
#define ICMP4_FRAG_NEEDED 4u
#define ICMP4_QUOTE_DATA 8u

#define IP6_LEN 40u
#define PROTO_ICMP6 58u
#define ICMP6_LEN 8u
#define ICMP6_TOO_BIG 2u
#define ICMP6_INFO_BIT 0x80u /* types below are errors */
#define ICMP6_PACKET_MAX 1280u

/* Linux's view: an error, or a type that nobody has defined. */
static int is_icmp4_error(uint8_t type)
{
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12 || type > 18;
}

/* One host, as far as the address itself can tell. 240/4 passes although RFC 1122 has it with the
 * class E "not single" ones: clusters use it for pods, and silence there is a black hole. */
static int is_ip4_host(const uint8_t *addr)
{
    return addr[0] != 0 && addr[0] != 127 && (addr[0] & 0xf0u) != 224 && wn_get32(addr) != 0xffffffffu;
}

static int is_ip6_host(const uint8_t *addr)
{
    static const uint8_t unspecified[16];
    return addr[0] != 0xff && memcmp(addr, unspecified, sizeof unspecified) != 0;
}

static int is_group_mac(const uint8_t *mac)
{
    return (mac[0] & 1u) != 0;
}

/* Type of the ICMP message in the packet; -1 when it can't be read. */
static int icmp_type(const uint8_t *frame, const wn_view *view)
{
    const int readable = (view->flags & WN_VIEW_LATER) == 0 && view->l4_off < view->l3_off + view->ip_len;
    return readable ? frame[view->l4_off] : -1;
}

/* Ethernet header of the answer, tags kept; the MACs change places. */
static void put_ethernet(uint8_t *out, const uint8_t *frame, size_t header_len)
{
    memcpy(out, frame + WN_MAC_LEN, WN_MAC_LEN);
    memcpy(out + WN_MAC_LEN, frame, WN_MAC_LEN);
    memcpy(out + 2 * WN_MAC_LEN, frame + 2 * WN_MAC_LEN, header_len - 2 * WN_MAC_LEN);
}

static int may_answer_ip4(const uint8_t *frame, const wn_view *view)
{
    if ((view->flags & WN_VIEW_IPV4) == 0 || is_group_mac(frame) || is_group_mac(frame + WN_MAC_LEN)) {
        return 0;
    }
    const uint8_t *ip = frame + view->l3_off;
    if ((view->flags & WN_VIEW_LATER) != 0 || !is_ip4_host(ip + 12) || !is_ip4_host(ip + 16)) {
        return 0;
    }
    if (view->l4_proto == PROTO_ICMP4) {
        const int type = icmp_type(frame, view);
        return type >= 0 && !is_icmp4_error((uint8_t)type);
    }
    return 1;
}

size_t wn_icmp4_too_big(const uint8_t *frame, size_t len, uint16_t mtu, uint8_t *out, size_t cap)
{
    wn_view view;
    if (wn_frame_parse(frame, len, &view) != WN_OK || !may_answer_ip4(frame, &view)) {
        return 0;
    }
    const uint8_t *ip = frame + view.l3_off;
    const size_t header_len = view.l4_off - view.l3_off;
    size_t quote = header_len + ICMP4_QUOTE_DATA;
    if (quote > view.ip_len) {
        quote = view.ip_len;
    }
    const size_t packet_len = IP4_LEN + ICMP4_LEN + quote;
    const size_t used = WN_ETH_LEN + packet_len;
    const size_t frame_len = used < FRAME_MIN ? FRAME_MIN : used;
    if (frame_len > cap) {
        return 0;
    }
    put_ethernet(out, frame, WN_ETH_LEN);
    uint8_t *answer = out + WN_ETH_LEN;
    memset(answer, 0, IP4_LEN + ICMP4_LEN);
    answer[0] = 0x45;
    answer[1] = ip[1]; /* TOS */
    wn_put16(answer + 2, (uint16_t)packet_len);
    answer[8] = HOP_LIMIT;
    answer[9] = PROTO_ICMP4;
    memcpy(answer + 12, ip + 16, 4);
    memcpy(answer + 16, ip + 12, 4);
    wn_ip4_set_csum(answer, IP4_LEN);

    uint8_t *icmp = answer + IP4_LEN;
    icmp[0] = ICMP4_UNREACHABLE;
    icmp[1] = ICMP4_FRAG_NEEDED;
    wn_put16(icmp + 6, mtu);
    memcpy(icmp + ICMP4_LEN, ip, quote);
    wn_put16(icmp + 2, (uint16_t)(wn_csum_add(icmp, ICMP4_LEN + quote, 0) ^ 0xffffu));
    memset(out + used, 0, frame_len - used);
    return frame_len;
}

static int may_answer_ip6(const uint8_t *frame, const wn_view *view)
{
    if (view->ip_version != 6 || is_group_mac(frame) || is_group_mac(frame + WN_MAC_LEN)) {
        return 0;
    }
    /* RFC 4443 would have a multicast destination answered (2.4 e.3), but from an address of the
     * router's own, which a bridge port does not have. */
    const uint8_t *ip = frame + view->l3_off;
    if (!is_ip6_host(ip + 8) || !is_ip6_host(ip + 24)) {
        return 0;
    }
    if (view->l4_proto == PROTO_ICMP6) {
        /* Of a later fragment the type is not to be had: it could be an error, so no answer. */
        const int type = icmp_type(frame, view);
        return type >= 0 && (type & (int)ICMP6_INFO_BIT) != 0;
    }
    return 1;
}

size_t wn_icmp6_too_big(const uint8_t *frame, size_t len, uint32_t mtu, uint8_t *out, size_t cap)
{
    wn_view view;
    if (wn_frame_parse(frame, len, &view) != WN_OK || !may_answer_ip6(frame, &view)) {
        return 0;
    }
    const uint8_t *ip = frame + view.l3_off;
    size_t quote = ICMP6_PACKET_MAX - IP6_LEN - ICMP6_LEN;
    if (quote > view.ip_len) {
        quote = view.ip_len;
    }
    const size_t icmp_len = ICMP6_LEN + quote;
    const size_t frame_len = view.l3_off + IP6_LEN + icmp_len; /* 102 and more: never padded */
    if (frame_len > cap) {
        return 0;
    }
    put_ethernet(out, frame, view.l3_off);
    uint8_t *answer = out + view.l3_off;
    memset(answer, 0, IP6_LEN + ICMP6_LEN);
    answer[0] = 0x60;
    wn_put16(answer + 4, (uint16_t)icmp_len);
    answer[6] = PROTO_ICMP6;
    answer[7] = HOP_LIMIT;
    memcpy(answer + 8, ip + 24, 16);
    memcpy(answer + 24, ip + 8, 16);

    uint8_t *icmp = answer + IP6_LEN;
    icmp[0] = ICMP6_TOO_BIG;
    wn_put32(icmp + 4, mtu);
    memcpy(icmp + ICMP6_LEN, ip, quote);
    const uint32_t sum = wn_csum_pseudo6(answer + 8, PROTO_ICMP6, (uint32_t)icmp_len);
    wn_put16(icmp + 2, (uint16_t)(wn_csum_fold(wn_csum_add(icmp, icmp_len, sum)) ^ 0xffffu));
    return frame_len;
}
