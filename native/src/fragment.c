/* fragment.c - cut an IPv4 frame without DF into fragments, for a path that can't be trusted to.
 *
 * With T = total length, h = header length and s = (mtu - h) rounded down to a multiple of 8, each
 * piece carries s bytes of payload and the last one the rest. Headers are the original's, options
 * included; MF is set on all but the last piece, which keeps the original's flags, so that cutting a
 * middle fragment works. Ethernet padding behind T goes; pieces shorter than 60 bytes get their own.
 *
 *     packet   | h | s bytes | s bytes | rest |
 *     pieces   | h'| s bytes |
 *              | h'| s bytes |
 *              | h'| rest |
 *
 * Weave copies options without their "copied" bit in mind (RFC 791 3.1 would keep only those), and
 * so do we: the bytes are to be the same. Where Weave would loop or crash we say WN_ERR_RANGE.
 *
 * Ref: Weave Net 2.8 router/sleeve.go (fragment); spec: sleeve 8.5. */
#include "bytes.h"
#include "weft_native.h"

#define FRAME_MIN 60u
#define IP4_MF 0x2000u
#define IP4_OFFSET 0x1fffu
#define IP4_TOTAL_MAX 65535u

typedef struct wn_cut_plan {
    uint32_t header;  /* h */
    uint32_t payload; /* T - h */
    uint32_t step;    /* s; the whole payload if the packet fits */
    uint32_t pieces;
    uint16_t flags;   /* the original flags and offset word */
} wn_cut_plan;

/* WN_OK, or WN_ERR_RANGE when the frame is not an IPv4 frame, shorter than its packet, not to be
 * fragmented (DF), too long for an offset, or the mtu leaves no 8 bytes a piece. */
static int make_plan(const uint8_t *frame, size_t len, uint16_t mtu, wn_cut_plan *plan)
{
    wn_view view;
    if (wn_frame_parse(frame, len, &view) != WN_OK || (view.flags & WN_VIEW_IPV4) == 0) {
        return WN_ERR_RANGE;
    }
    const uint8_t *ip = frame + view.l3_off;
    if (view.ip_len < wn_get16(ip + 2) || view.ip_len > IP4_TOTAL_MAX) {
        return WN_ERR_RANGE;
    }
    plan->header = view.l4_off - view.l3_off;
    plan->payload = view.ip_len - plan->header;
    plan->flags = wn_get16(ip + 6);
    if (view.ip_len <= mtu) {
        plan->step = plan->payload;
        plan->pieces = 1;
        return WN_OK;
    }
    if ((view.flags & WN_VIEW_DF) != 0 || mtu < plan->header + 8) {
        return WN_ERR_RANGE;
    }
    plan->step = (mtu - plan->header) & ~7u;
    plan->pieces = (plan->payload + plan->step - 1) / plan->step;
    if ((plan->flags & IP4_OFFSET) + (plan->pieces - 1) * (plan->step / 8) > IP4_OFFSET) {
        return WN_ERR_RANGE;
    }
    return WN_OK;
}

int wn_ip4_fragment_count(const uint8_t *frame, size_t len, uint16_t mtu)
{
    wn_cut_plan plan;
    const int result = make_plan(frame, len, mtu, &plan);
    return result == WN_OK ? (int)plan.pieces : result;
}

/* Bytes of payload that piece `index` carries; *at says where they begin. */
static uint32_t share(const wn_cut_plan *plan, uint32_t index, uint32_t *at)
{
    *at = index * plan->step;
    const uint32_t left = plan->payload - *at;
    return left < plan->step ? left : plan->step;
}

/* Ethernet and IP header of piece `index`; their length. */
static size_t put_headers(const wn_cut_plan *plan, uint32_t index, const uint8_t *frame, uint8_t *out)
{
    uint32_t at = 0;
    const uint32_t take = share(plan, index, &at);
    memcpy(out, frame, WN_ETH_LEN + plan->header);
    uint8_t *ip = out + WN_ETH_LEN;
    if (plan->pieces > 1 || wn_get16(ip + 2) == 0) {
        uint16_t flags = (uint16_t)(plan->flags + at / 8);
        if (index + 1 < plan->pieces) {
            flags = (uint16_t)(flags | IP4_MF);
        }
        wn_put16(ip + 2, (uint16_t)(plan->header + take));
        wn_put16(ip + 6, flags);
        wn_ip4_set_csum(ip, plan->header);
    } /* else it fits: nothing changes, a wrong checksum included */
    return WN_ETH_LEN + plan->header;
}

int wn_ip4_fragment_build(const uint8_t *frame, size_t len, uint16_t mtu, int index, uint8_t *out,
                          size_t cap)
{
    wn_cut_plan plan;
    const int result = make_plan(frame, len, mtu, &plan);
    if (result != WN_OK) {
        return result;
    }
    if (index < 0 || (uint32_t)index >= plan.pieces) {
        return WN_ERR_RANGE;
    }
    uint32_t at = 0;
    const uint32_t take = share(&plan, (uint32_t)index, &at);
    const size_t used = WN_ETH_LEN + plan.header + take;
    const size_t frame_len = used < FRAME_MIN ? FRAME_MIN : used;
    if (frame_len > cap) {
        return WN_ERR_RANGE;
    }
    const size_t headers = put_headers(&plan, (uint32_t)index, frame, out);
    memcpy(out + headers, frame + headers + at, take);
    memset(out + used, 0, frame_len - used);
    return (int)frame_len;
}

int wn_ip4_fragment_head(const uint8_t *frame, size_t len, uint16_t mtu, int index, uint8_t out[WN_FRAGMENT_HEAD_MAX],
                         const uint8_t **payload, uint32_t *payload_len)
{
    wn_cut_plan plan;
    const int result = make_plan(frame, len, mtu, &plan);
    if (result != WN_OK) {
        return result;
    }
    if (index < 0 || (uint32_t)index >= plan.pieces) {
        return WN_ERR_RANGE;
    }
    uint32_t at = 0;
    *payload_len = share(&plan, (uint32_t)index, &at);
    const size_t headers = put_headers(&plan, (uint32_t)index, frame, out);
    *payload = frame + headers + at;
    return (int)headers;
}
