/* narrow.c - received frames that are longer than our bridge takes.
 *
 * The bridge drops them without a word, and neighbours do send them: a Weave bridge has an MTU of 65535
 * unless told otherwise, whatever the paths to others carry. So we do what a router does whose next
 * link is narrower:
 *
 *   IPv4, no DF         cut into fragments
 *   IPv4, DF; IPv6      drop, and tell the sender, as if its destination did (spec: sleeve 8.4)
 *   flooded frames      as above, but nobody is told
 *   anything else       as it is: it may be for a port that takes more
 */
#include "bytes.h"
#include "internal.h"

#define IPV6_MTU_MIN 1280u

static void tell(wn_datapath *dp, wn_batch *batch, uint16_t from, uint16_t to, const wn_frame *frame,
                 const wn_view *view, uint32_t mtu)
{
    uint8_t *out = batch->arena + WN_ANSWERS_AT + batch->answers_used;
    size_t cap = WN_ANSWER_BYTES - batch->answers_used;
    size_t len = view->ip_version == 6 ? wn_icmp6_too_big(frame->data, frame->len, mtu, out, cap)
                                       : wn_icmp4_too_big(frame->data, frame->len, (uint16_t)mtu, out, cap);
    wn_frame *answer = len ? wn_batch_add_frame(batch) : NULL;
    if (!answer)
        return;
    batch->answers_used += (uint32_t)((len + 63u) & ~63u);
    answer->data = out;
    answer->len = (uint32_t)len;
    answer->src_peer = from;
    answer->dst_peer = to;
    answer->relay = 1;
    wn_count(dp, WN_C_TOO_BIG_ANSWERS, 1);
}

void wn_narrow(wn_datapath *dp, wn_batch *batch, wn_frame *frame, uint16_t ourself, uint32_t mtu,
               uint32_t now_s)
{
    wn_view view;
    if (wn_frame_parse(frame->data, frame->len, &view) != WN_OK || view.vlan_tags || !view.ip_version)
        return;
    bool ip4 = (view.flags & WN_VIEW_IPV4) != 0;
    if (view.ip_len <= mtu || (!ip4 && (view.ip_version != 6 || mtu < IPV6_MTU_MIN)))
        return;
    if (ip4 && !(view.flags & WN_VIEW_DF)) {
        frame->cut = wn_ip4_fragment_count(frame->data, frame->len, (uint16_t)mtu) > 1;
        return;
    }
    frame->deliver = 0;
    wn_count(dp, frame->here ? WN_C_DROP_TOO_BIG : WN_C_DROP_TOO_BIG_FLOODED, 1);
    if (frame->here && wn_may_answer(dp, now_s))
        tell(dp, batch, ourself, frame->src_peer, frame, &view, mtu);
}

void wn_inject_cut(wn_datapath *dp, wn_batch *batch, const wn_frame *frame, uint32_t others)
{
    uint16_t mtu = (uint16_t)__atomic_load_n(&dp->port_mtu, __ATOMIC_RELAXED);
    int pieces = wn_ip4_fragment_count(frame->data, frame->len, mtu);
    if (pieces < 1) { /* the MTU has changed since */
        wn_count(dp, WN_C_DROP_BAD_FRAGMENT, 1);
        return;
    }
    uint32_t n = (uint32_t)pieces;
    if (batch->n_injects + n + others > WN_FRAMES ||
        batch->hdr_used + n * WN_FRAGMENT_HEAD_MAX > WN_HDR_BYTES) {
        wn_count(dp, WN_C_DROP_BATCH_FULL, 1);
        return;
    }
    for (int i = 0; i < pieces; i++) {
        uint8_t *head = batch->hdr + batch->hdr_used;
        const uint8_t *payload = NULL;
        uint32_t payload_len = 0;
        int head_len = wn_ip4_fragment_head(frame->data, frame->len, mtu, i, head, &payload, &payload_len);
        batch->hdr_used += (uint32_t)head_len;
        wn_inject_parts(batch, head, (uint32_t)head_len, payload, payload_len);
    }
    wn_count(dp, WN_C_FRAGMENTED_FRAMES, 1);
}
