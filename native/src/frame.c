/* frame.c - read an Ethernet frame's headers into a wn_view: no copy, nothing trusted.
 *
 *     frame                 l3_off        l4_off              payload_off
 *     | dst | src | (tag)*2 | IP header(s)| TCP or UDP header | payload ...            | padding |
 *                           |<------------------- ip_len ------------------------------>|
 *
 * What a caller may lean on:
 *   - WN_VIEW_L4 promises more than a readable header: the packet lies whole within the frame and is
 *     no fragment, so that its length may be used to check, cut or join. A packet whose length field
 *     exceeds the frame keeps WN_VIEW_IPV4 (DF still decides its channel) and ip_version, but has
 *     ip_len clamped to the frame and no WN_VIEW_L4;
 *   - l3_off <= l4_off <= payload_off <= l3_off + ip_len <= len when ip_version is not 0; without
 *     WN_VIEW_L4 payload_off equals l4_off; with ip_version 0 the three offsets are equal, ip_len is 0;
 *   - without WN_VIEW_L4, l4_proto is the first protocol that was not walked through: for a cut-off or
 *     not understood IPv6 extension header its own number, with l4_off at its first byte;
 *   - an IPv6 payload length of 0 means 0: jumbograms (RFC 2675) do not pass Ethernet.
 *
 * Ref: RFC 791, RFC 8200 section 4, RFC 6946, IEEE 802.1Q and 802.1ad; Weave Net 2.8 router/ethernet_decoder.go. */
#include "bytes.h"
#include "weft_native.h"

#define ETHERTYPE_IP4 0x0800u
#define ETHERTYPE_IP6 0x86ddu
#define ETHERTYPE_TAG 0x8100u
#define ETHERTYPE_QINQ 0x88a8u
#define VLAN_TAGS_MAX 2

#define IP4_MIN 20u
#define IP4_DF 0x4000u
#define IP4_OFFSET 0x1fffu
#define IP4_MF_OFFSET 0x3fffu
#define IP6_LEN 40u
#define IP6_OFFSET 0xfff8u
#define IP6_EXT_MAX 8 /* our bound; RFC 8200 4.1 has no use for more than seven */

#define PROTO_HOP_BY_HOP 0u
#define PROTO_TCP 6u
#define PROTO_UDP 17u
#define PROTO_ROUTING 43u
#define PROTO_FRAGMENT 44u
#define PROTO_DEST_OPTS 60u

#define TCP_MIN 20u
#define UDP_LEN 8u

static void set_flag(wn_view *view, unsigned flag)
{
    view->flags = (uint8_t)(view->flags | flag);
}

/* l4_off is set and the packet is whole: find the payload behind a complete TCP or UDP header. */
static void parse_l4(const uint8_t *frame, wn_view *view)
{
    const uint8_t *l4 = frame + view->l4_off;
    const uint32_t left = view->l3_off + view->ip_len - view->l4_off;
    uint32_t header = 0;
    if (view->l4_proto == PROTO_TCP && left >= TCP_MIN) {
        header = (uint32_t)(l4[12] >> 4) * 4u;
        if (header < TCP_MIN || header > left) {
            return;
        }
    } else if (view->l4_proto == PROTO_UDP && left >= UDP_LEN) {
        header = UDP_LEN;
    } else {
        return;
    }
    view->payload_off = view->l4_off + header;
    set_flag(view, WN_VIEW_L4);
}

/* left: bytes of the frame from l3_off on. */
static void parse_ip4(const uint8_t *frame, uint32_t left, wn_view *view)
{
    const uint8_t *ip = frame + view->l3_off;
    if (left < IP4_MIN || (ip[0] >> 4) != 4) {
        return;
    }
    const uint32_t header = (uint32_t)(ip[0] & 0x0fu) * 4u;
    uint32_t total = wn_get16(ip + 2);
    if (total == 0) {
        total = left; /* what offload engines write when 16 bits don't do */
    }
    if (header < IP4_MIN || header > left || total < header) {
        return;
    }
    view->ip_version = 4;
    view->ip_len = total <= left ? total : left;
    view->l4_off = view->l3_off + header;
    view->payload_off = view->l4_off;
    view->l4_proto = ip[9];
    if (view->vlan_tags == 0) {
        set_flag(view, WN_VIEW_IPV4);
    }
    if (header > IP4_MIN) {
        set_flag(view, WN_VIEW_EXT);
    }
    const uint16_t flags = wn_get16(ip + 6);
    if ((flags & IP4_DF) != 0 && view->vlan_tags == 0) {
        set_flag(view, WN_VIEW_DF);
    }
    if ((flags & IP4_MF_OFFSET) != 0) {
        set_flag(view, (flags & IP4_OFFSET) != 0 ? WN_VIEW_FRAGMENT | WN_VIEW_LATER : WN_VIEW_FRAGMENT);
    } else if (total <= left) {
        parse_l4(frame, view);
    }
}

/* Walk the extension headers we know from l4_off on; l4_proto names the one there. */
static void skip_ip6_extensions(const uint8_t *frame, wn_view *view)
{
    for (int i = 0; i < IP6_EXT_MAX; i++) {
        const uint32_t left = view->l3_off + view->ip_len - view->l4_off;
        const uint8_t *ext = frame + view->l4_off;
        uint32_t size = 8;
        switch (view->l4_proto) {
        case PROTO_HOP_BY_HOP:
        case PROTO_ROUTING:
        case PROTO_DEST_OPTS:
            set_flag(view, WN_VIEW_EXT);
            if (left < 2) {
                return;
            }
            size = ((uint32_t)ext[1] + 1u) * 8u;
            break;
        case PROTO_FRAGMENT:
            set_flag(view, WN_VIEW_EXT | WN_VIEW_FRAGMENT);
            break;
        default:
            return;
        }
        if (left < size) {
            return;
        }
        if (view->l4_proto == PROTO_FRAGMENT && (wn_get16(ext + 2) & IP6_OFFSET) != 0) {
            set_flag(view, WN_VIEW_LATER);
        }
        view->l4_proto = ext[0];
        view->l4_off += size;
        view->payload_off = view->l4_off;
        if ((view->flags & WN_VIEW_LATER) != 0) {
            return; /* what follows is the middle of something */
        }
    }
}

static void parse_ip6(const uint8_t *frame, uint32_t left, wn_view *view)
{
    const uint8_t *ip = frame + view->l3_off;
    if (left < IP6_LEN || (ip[0] >> 4) != 6) {
        return;
    }
    const uint32_t total = IP6_LEN + wn_get16(ip + 4);
    view->ip_version = 6;
    view->ip_len = total <= left ? total : left;
    view->l4_off = view->l3_off + IP6_LEN;
    view->payload_off = view->l4_off;
    view->l4_proto = ip[6];
    skip_ip6_extensions(frame, view);
    if ((view->flags & WN_VIEW_FRAGMENT) == 0 && total <= left) {
        parse_l4(frame, view);
    }
}

int wn_frame_parse(const uint8_t *frame, size_t len, wn_view *view)
{
    *view = (wn_view){0};
    if (len < WN_ETH_LEN) {
        return WN_ERR_TRUNCATED;
    }
    /* Offsets are 32 bits; no frame comes near that, and what follows a cut is never looked at. */
    const uint32_t end = len < 0x7fffffffu ? (uint32_t)len : 0x7fffffffu;
    uint32_t l3_off = WN_ETH_LEN;
    uint16_t type = wn_get16(frame + 12);
    while ((type == ETHERTYPE_TAG || type == ETHERTYPE_QINQ) && view->vlan_tags < VLAN_TAGS_MAX &&
           end - l3_off >= 4) {
        type = wn_get16(frame + l3_off + 2);
        l3_off += 4;
        view->vlan_tags++;
    }
    view->l3_off = view->l4_off = view->payload_off = l3_off;
    view->ethertype = type;
    if (type == ETHERTYPE_IP4) {
        parse_ip4(frame, end - l3_off, view);
    } else if (type == ETHERTYPE_IP6) {
        parse_ip6(frame, end - l3_off, view);
    }
    return WN_OK;
}
