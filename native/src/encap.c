/* encap.c - frames for other peers into records, by the size rules of spec: sleeve 8.2.
 *
 *                       fits the path        too big for it
 *   IPv4, DF            DF channel           ICMP back and drop; flooded: drop
 *   IPv4, no DF         DF channel (1)       fragment here, pieces on the DF channel (1)
 *   IPv6, untagged      non-DF channel       ICMPv6 back and drop (2); flooded: non-DF channel
 *   anything else       non-DF channel       non-DF channel, the underlay fragments
 *   (1) non-DF channel if the underlay is known to carry fragments
 *   (2) ours: the original lets the underlay fragment it. Below IPv6's minimum MTU of 1280 so do we.
 *
 * A unit of work is one frame to one neighbour. When the batch has no room for the next unit, the call
 * ends with WN_MORE and remembers where it was.
 */
#include "bytes.h"
#include "internal.h"

#define ANSWERS_PER_SECOND 1000
#define IPV6_MTU_MIN 1280u
#define FRAME_LONGEST (WN_PAYLOAD_MAX - WN_NAME_LEN - WN_RECORD_LEN)

typedef struct unit {
    wn_datapath *dp;
    wn_batch *batch;
    const wn_tables *tables;
    wn_frame *frame;
    const wn_view *view;
    const wn_forwarder *to;
    const uint8_t *src;
    const uint8_t *dst;
    uint16_t forwarder;
    bool flooded;
    uint32_t now_s;
    uint64_t relayed;
    uint64_t copies; /* of flooded frames */
} unit;

enum { UNIT_DROPPED, UNIT_SENT, UNIT_NO_ROOM };

static int drop(const unit *u, int reason)
{
    wn_count(u->dp, reason, 1);
    if (!u->flooded)
        u->frame->drop = (uint16_t)reason;
    return UNIT_DROPPED;
}

/* Longest frame that the neighbour's path takes unfragmented. */
static uint32_t fitting(const wn_forwarder *to)
{
    uint32_t len = to->mtu + WN_ETH_LEN;
    return len < FRAME_LONGEST ? len : FRAME_LONGEST;
}

/* Too-big answers are cheap to provoke: allow a bounded number per second. */
bool wn_may_answer(wn_datapath *dp, uint32_t now_s)
{
    if (__atomic_exchange_n(&dp->answer_epoch_s, now_s, __ATOMIC_RELAXED) != now_s)
        __atomic_store_n(&dp->answer_budget, ANSWERS_PER_SECOND, __ATOMIC_RELAXED);
    return __atomic_fetch_sub(&dp->answer_budget, 1, __ATOMIC_RELAXED) > 0;
}

/* Hand the answer to its addressee as if the frame's destination had sent it (spec: sleeve 8.4). */
static void route_answer(const unit *u, uint8_t *answer, uint32_t len)
{
    wn_batch *batch = u->batch;
    wn_frame frame = {.data = answer,
                      .len = len,
                      .src_peer = u->frame->dst_peer,
                      .dst_peer = u->frame->src_peer,
                      .from = WN_FORWARDER_NONE,
                      .drop = WN_DROP_NONE,
                      .next = -1};
    if (frame.dst_peer == u->tables->ourself) {
        pthread_mutex_lock(&u->dp->fdb_lock);
        wn_fdb_learn_remote(u->dp->fdb, answer + WN_MAC_LEN, frame.src_peer, u->now_s);
        pthread_mutex_unlock(&u->dp->fdb_lock);
        if (!wn_inject_frame(batch, &frame))
            return;
    } else {
        wn_frame *queued = wn_batch_add_frame(batch);
        if (!queued)
            return;
        *queued = frame;
        queued->relay = 1;
    }
    wn_count(u->dp, WN_C_TOO_BIG_ANSWERS, 1);
}

/* Returns false if there is nobody to tell. */
static bool answer_too_big(const unit *u)
{
    wn_batch *batch = u->batch;
    uint8_t *out = batch->arena + WN_ANSWERS_AT + batch->answers_used;
    size_t cap = WN_ANSWER_BYTES - batch->answers_used;
    uint32_t mtu = u->to->mtu < FRAME_LONGEST - WN_ETH_LEN ? u->to->mtu : FRAME_LONGEST - WN_ETH_LEN;
    size_t len = 0;
    if (!wn_may_answer(u->dp, u->now_s))
        return true;
    if (u->view->ip_version == 6)
        len = wn_icmp6_too_big(u->frame->data, u->frame->len, mtu, out, cap);
    else
        len = wn_icmp4_too_big(u->frame->data, u->frame->len, (uint16_t)mtu, out, cap);
    if (len == 0)
        return cap < 2048; /* out of room: keep silent rather than change channel */
    batch->answers_used += (uint32_t)((len + 63u) & ~63u);
    route_answer(u, out, (uint32_t)len);
    return true;
}

static void put_whole(const unit *u, uint8_t df)
{
    wn_frame *frame = u->frame;
    wn_slot *slot = wn_pack_slot(u->batch, u->forwarder, df);
    if (frame->headroom) {
        uint8_t *record = frame->data - WN_RECORD_LEN;
        frame->headroom = 0; /* the header in front of it now belongs to this neighbour's copy */
        wn_sleeve_put_record(record, u->src, u->dst, (uint16_t)frame->len);
        wn_pack_add(u->batch, slot, record, WN_RECORD_LEN + frame->len, NULL, 0);
        return;
    }
    uint8_t *record = wn_pack_header(u->batch, 0);
    wn_sleeve_put_record(record, u->src, u->dst, (uint16_t)frame->len);
    wn_pack_add(u->batch, slot, record, WN_RECORD_LEN, frame->data, frame->len);
}

static int send_whole(const unit *u, uint8_t df)
{
    if (u->frame->len > FRAME_LONGEST)
        return drop(u, WN_C_DROP_FRAME_TOO_LONG);
    if (!wn_pack_room(u->batch, 1, 64))
        return UNIT_NO_ROOM;
    put_whole(u, df);
    return UNIT_SENT;
}

/* IPv4 fragments of one frame, copied: rare and slow by nature. */
static int send_fragments(const unit *u, const uint8_t *frame, uint32_t len)
{
    uint16_t mtu = (uint16_t)(fitting(u->to) - WN_ETH_LEN);
    int pieces = wn_ip4_fragment_count(frame, len, mtu);
    if (pieces < 1)
        return drop(u, WN_C_DROP_BAD_FRAGMENT);
    uint32_t room = (uint32_t)mtu + WN_ETH_LEN + 64u;
    if (!wn_pack_room(u->batch, (uint32_t)pieces, (uint32_t)pieces * (room + 48u)))
        return UNIT_NO_ROOM;
    wn_slot *slot = wn_pack_slot(u->batch, u->forwarder, 1);
    for (int i = 0; i < pieces; i++) {
        uint8_t *record = u->batch->hdr + u->batch->hdr_used + WN_NAME_LEN;
        int built = wn_ip4_fragment_build(frame, len, mtu, i, record + WN_RECORD_LEN, room);
        if (built < 0 || (uint32_t)built > FRAME_LONGEST)
            return drop(u, WN_C_DROP_BAD_FRAGMENT);
        wn_pack_header(u->batch, (uint32_t)built);
        wn_sleeve_put_record(record, u->src, u->dst, (uint16_t)built);
        wn_pack_add(u->batch, slot, record, WN_RECORD_LEN + (uint32_t)built, NULL, 0);
    }
    wn_count(u->dp, WN_C_FRAGMENTED_FRAMES, 1);
    return UNIT_SENT;
}

/* The pieces of a super-frame, each with headers of its own; payload is gathered from the frame. */
static int send_pieces(const unit *u, const wn_cut *cut, uint8_t df)
{
    uint32_t each = (WN_NAME_LEN + WN_RECORD_LEN + cut->header_len + 31u) & ~15u;
    uint32_t longest = cut->pieces > 1 ? cut->header_len + cut->gso_size : cut->frame->len;
    if (longest > FRAME_LONGEST)
        return drop(u, WN_C_DROP_FRAME_TOO_LONG);
    if (!wn_pack_room(u->batch, cut->pieces, cut->pieces * each))
        return UNIT_NO_ROOM;
    wn_slot *slot = wn_pack_slot(u->batch, u->forwarder, df);
    for (uint32_t i = 0; i < cut->pieces; i++) {
        const uint8_t *payload = NULL;
        uint32_t payload_len = 0;
        uint8_t *record = wn_pack_header(u->batch, cut->header_len);
        wn_cut_piece(cut, i, record + WN_RECORD_LEN, &payload, &payload_len);
        wn_sleeve_put_record(record, u->src, u->dst, (uint16_t)(cut->header_len + payload_len));
        wn_pack_add(u->batch, slot, record, WN_RECORD_LEN + cut->header_len, payload, payload_len);
    }
    return UNIT_SENT;
}

/* A super-frame whose pieces don't fit and may be fragmented: build each piece, then cut it again. */
static int fragment_pieces(const unit *u, const wn_cut *cut)
{
    uint32_t piece_max = cut->header_len + cut->gso_size;
    int fragments = (int)(piece_max / 8u / ((u->to->mtu - 60u) / 8u) + 1u);
    uint32_t recs = cut->pieces * (uint32_t)fragments;
    uint32_t each = (uint32_t)u->to->mtu + 192u;
    if (piece_max > FRAME_LONGEST)
        return drop(u, WN_C_DROP_FRAME_TOO_LONG);
    if (!wn_pack_room(u->batch, recs, recs * each + piece_max + 64u))
        return UNIT_NO_ROOM;
    uint8_t *whole = wn_pack_header(u->batch, piece_max); /* scratch, reused for each piece */
    for (uint32_t i = 0; i < cut->pieces; i++) {
        const uint8_t *payload = NULL;
        uint32_t payload_len = 0;
        wn_cut_piece(cut, i, whole, &payload, &payload_len);
        memcpy(whole + cut->header_len, payload, payload_len);
        if (send_fragments(u, whole, cut->header_len + payload_len) == UNIT_NO_ROOM)
            return drop(u, WN_C_DROP_BATCH_FULL);
    }
    return UNIT_SENT;
}

static int send_gso(const unit *u)
{
    wn_cut cut;
    if (wn_cut_init(&cut, u->frame, u->view) != WN_OK)
        return drop(u, WN_C_DROP_BAD_OFFLOAD);
    uint32_t longest = cut.pieces > 1 ? cut.header_len + cut.gso_size : u->frame->len;
    uint32_t fits = fitting(u->to);
    bool too_big = longest > fits;
    if (u->view->flags & WN_VIEW_IPV4) {
        bool df = (u->view->flags & WN_VIEW_DF) != 0;
        if (df && too_big && u->flooded)
            return drop(u, WN_C_DROP_TOO_BIG_FLOODED);
        if (df && too_big) {
            answer_too_big(u);
            return drop(u, WN_C_DROP_TOO_BIG);
        }
        if (df || !too_big)
            return send_pieces(u, &cut, df || !u->to->stack_frag);
        wn_cut_limit(&cut, fits - cut.header_len);
        if (cut.header_len + cut.gso_size <= fits)
            return send_pieces(u, &cut, !u->to->stack_frag);
        return u->to->stack_frag ? send_pieces(u, &cut, 0) : fragment_pieces(u, &cut);
    }
    if (too_big && u->view->ip_version == 6 && !u->view->vlan_tags && !u->flooded &&
        u->to->mtu >= IPV6_MTU_MIN && answer_too_big(u))
        return drop(u, WN_C_DROP_TOO_BIG);
    if (too_big && fits > cut.header_len)
        wn_cut_limit(&cut, fits - cut.header_len);
    return send_pieces(u, &cut, 0);
}

static int send_plain(const unit *u)
{
    bool too_big = u->frame->len > fitting(u->to);
    if (u->view->flags & WN_VIEW_IPV4) {
        bool df = (u->view->flags & WN_VIEW_DF) != 0;
        if (df && too_big && u->flooded)
            return drop(u, WN_C_DROP_TOO_BIG_FLOODED);
        if (df && too_big) {
            answer_too_big(u);
            return drop(u, WN_C_DROP_TOO_BIG);
        }
        if (df)
            return send_whole(u, 1);
        if (u->to->stack_frag && u->frame->len <= FRAME_LONGEST)
            return send_whole(u, 0);
        return too_big ? send_fragments(u, u->frame->data, u->frame->len) : send_whole(u, 1);
    }
    if (too_big && u->view->ip_version == 6 && !u->view->vlan_tags && !u->flooded &&
        u->to->mtu >= IPV6_MTU_MIN && answer_too_big(u))
        return drop(u, WN_C_DROP_TOO_BIG);
    return send_whole(u, 0);
}

static int send_unit(unit *u)
{
    if (u->forwarder == WN_FORWARDER_NONE)
        return drop(u, WN_C_DROP_NO_ROUTE);
    u->to = &u->dp->forwarders[u->forwarder];
    if (!u->to->in_use || u->to->addr.sin_addr.s_addr == 0)
        return drop(u, WN_C_DROP_NO_ADDRESS);
    if (u->flooded)
        u->dst = u->to->name; /* rewritten at every hop */
    int done = u->frame->vnet.gso_type == WN_GSO_NONE ? send_plain(u) : send_gso(u);
    if (done == UNIT_SENT && u->flooded)
        u->copies++;
    else if (done == UNIT_SENT && u->frame->from != WN_FORWARDER_NONE)
        u->relayed++;
    return done;
}

/* All units of one frame from batch->encap_hop on; tells only whether there was room for them. */
static int send_frame(unit *u)
{
    wn_frame *frame = u->frame;
    const wn_peer *source = &u->tables->peers[frame->src_peer];
    u->src = source->name;
    u->flooded = frame->flood != 0;
    if (frame->relay) {
        u->dst = u->tables->peers[frame->dst_peer].name;
        u->forwarder = u->tables->peers[frame->dst_peer].via;
        return send_unit(u);
    }
    for (; u->batch->encap_hop < source->n_hops; u->batch->encap_hop++) {
        u->forwarder = u->tables->hops[source->hops + u->batch->encap_hop];
        if (u->forwarder == frame->from)
            continue; /* never straight back, whatever the trees say just now */
        if (send_unit(u) == UNIT_NO_ROOM)
            return UNIT_NO_ROOM;
    }
    return UNIT_DROPPED;
}

int wn_encap(wn_datapath *dp, wn_batch *batch, uint32_t now_s)
{
    int more = 0;
    batch->n_msgs = batch->next_msg = 0;
    batch->n_iovs = batch->hdr_used = 0;
    batch->seal_used = batch->packed_bytes = 0;
    batch->n_recs = batch->n_slots = batch->n_injects = batch->n_events = 0;
    if (batch->encap_frame >= batch->n_frames)
        return 0;
    pthread_rwlock_rdlock(&dp->lock);
    if (!dp->tables) {
        pthread_rwlock_unlock(&dp->lock);
        return 0;
    }
    unit u = {.dp = dp, .batch = batch, .tables = dp->tables, .now_s = now_s};
    while (batch->encap_frame < batch->n_frames) {
        wn_frame *frame = &batch->frames[batch->encap_frame];
        wn_view view;
        if (frame->drop == WN_DROP_NONE && (frame->relay || frame->flood) &&
            frame->src_peer < dp->tables->n_peers &&
            (frame->flood || frame->dst_peer < dp->tables->n_peers) &&
            wn_frame_parse(frame->data, frame->len, &view) == WN_OK) {
            u.frame = frame;
            u.view = &view;
            if (send_frame(&u) == UNIT_NO_ROOM) {
                if (batch->n_recs > 0) {
                    more = WN_MORE;
                    break;
                }
                wn_count(dp, WN_C_DROP_BATCH_FULL, 1); /* would never fit */
                batch->encap_hop++;
                if (frame->flood && batch->encap_hop < dp->tables->peers[frame->src_peer].n_hops)
                    continue;
            }
        }
        batch->encap_frame++;
        batch->encap_hop = 0;
    }
    wn_pack_finish(dp, batch);
    pthread_rwlock_unlock(&dp->lock);
    wn_count(dp, WN_C_RELAYED_FRAMES, u.relayed);
    wn_count(dp, WN_C_FLOODED_FRAMES, u.copies);
    return (int)batch->n_msgs | more;
}
