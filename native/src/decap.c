/* decap.c - received datagrams into frames, and what becomes of each (spec: sleeve 4.2, 5.3, 6).
 *
 * Frames stay where they were received. A datagram may be a train of equally long ones that the kernel
 * joined (UDP GRO); each has a sender name of its own. Records already split are used even if the rest
 * of their datagram is damaged.
 */
#include "bytes.h"
#include "internal.h"

#define SPECIALS_PER_SECOND 1000

typedef struct names {
    const wn_tables *tables;
    const uint8_t *name;
    uint16_t peer;
} names;

/* Peer of a name, asking the table only when it differs from the last one. */
static uint16_t find(names *cache, const uint8_t *name)
{
    if (!cache->name || memcmp(cache->name, name, WN_NAME_LEN) != 0) {
        cache->peer = wn_tables_find(cache->tables, name);
        cache->name = name;
    }
    return cache->peer;
}

typedef struct decoder {
    wn_datapath *dp;
    wn_batch *batch;
    const wn_tables *tables;
    names senders, sources, destinations;
    const wn_frame *last;  /* last frame addressed to us: its MACs are settled */
    uint16_t forwarder;    /* of the datagram at hand */
    uint16_t sender;
    uint32_t now_s;
    uint64_t frames, bytes, datagrams;
} decoder;

static void stray(decoder *d, int reason) { wn_count(d->dp, reason, 1); }

static bool starts_with_14_zeros(const uint8_t *frame, uint32_t len)
{
    static const uint8_t zeros[WN_ETH_LEN];
    return len >= WN_ETH_LEN && memcmp(frame, zeros, WN_ETH_LEN) == 0;
}

/* Python looks at each special frame, and anybody can forge one: allow a bounded number per second. Who
 * means it repeats it. */
static bool may_tell(decoder *d)
{
    if (__atomic_exchange_n(&d->dp->special_epoch_s, d->now_s, __ATOMIC_RELAXED) != d->now_s)
        __atomic_store_n(&d->dp->special_budget, SPECIALS_PER_SECOND, __ATOMIC_RELAXED);
    return __atomic_fetch_sub(&d->dp->special_budget, 1, __ATOMIC_RELAXED) > 0;
}

static void take_special(decoder *d, const wn_dgram *dgram, const wn_record *record, uint16_t src,
                         uint16_t dst)
{
    if (src != d->sender || dst != d->tables->ourself) {
        stray(d, WN_C_DROP_STRAY_SPECIAL);
        return;
    }
    int all_zero = 0;
    wn_event event = {.kind = WN_EVENT_SPECIAL,
                      .forwarder = d->forwarder,
                      .addr = dgram->addr,
                      .port = dgram->port,
                      .frame_len = record->frame_len};
    event.special = (uint8_t)wn_sleeve_special(record->frame, record->frame_len, &all_zero);
    event.all_zero = all_zero != 0;
    if (event.special == WN_SPECIAL_HEARTBEAT)
        event.uid = ((uint64_t)wn_get32(record->frame + 14) << 32) | wn_get32(record->frame + 18);
    if (!may_tell(d)) {
        stray(d, WN_C_DROP_SPECIAL_FLOOD);
        return;
    }
    wn_count(d->dp, WN_C_SPECIAL_FRAMES, 1);
    wn_batch_add_event(d->batch, &event);
}

/* D = us: learn the source, deliver, and flood on unless the destination is known to be here. */
static void settle(decoder *d, wn_frame *frame)
{
    if (d->last && d->last->src_peer == frame->src_peer &&
        memcmp(d->last->data, frame->data, 2 * WN_MAC_LEN) == 0) {
        frame->flood = d->last->flood;
        frame->here = d->last->here;
        return;
    }
    int learned = wn_fdb_learn_remote(d->dp->fdb, frame->data + WN_MAC_LEN, frame->src_peer, d->now_s);
    if (learned == WN_LEARN_NEW)
        wn_count(d->dp, WN_C_FDB_LEARNED, 1);
    else if (learned == WN_LEARN_MOVED)
        wn_count(d->dp, WN_C_FDB_MOVED, 1);
    else if (learned == WN_LEARN_FULL)
        wn_count(d->dp, WN_C_FDB_FULL, 1);
    uint16_t at = wn_fdb_lookup(d->dp->fdb, frame->data, d->now_s);
    frame->here = at == d->tables->ourself;
    frame->flood = !frame->here && d->tables->peers[frame->src_peer].n_hops > 0;
    d->last = frame;
}

static void take_record(decoder *d, const wn_dgram *dgram, const wn_record *record)
{
    uint16_t src = find(&d->sources, record->src);
    uint16_t dst = find(&d->destinations, record->dst);
    if (src == WN_PEER_NONE || dst == WN_PEER_NONE) {
        stray(d, WN_C_DROP_UNKNOWN_PEER);
        return;
    }
    if (starts_with_14_zeros(record->frame, record->frame_len)) {
        take_special(d, dgram, record, src, dst);
        return;
    }
    if (src == d->tables->ourself) {
        stray(d, WN_C_DROP_OWN_SOURCE);
        return;
    }
    if (record->frame_len < WN_ETH_LEN) {
        stray(d, WN_C_DROP_SHORT_FRAME);
        return;
    }
    wn_frame *frame = wn_batch_add_frame(d->batch);
    frame->data = (uint8_t *)(uintptr_t)record->frame;
    frame->len = record->frame_len;
    frame->src_peer = src;
    frame->dst_peer = dst;
    frame->from = d->forwarder;
    if (dst != d->tables->ourself) {
        frame->relay = 1;
        return;
    }
    frame->deliver = 1;
}

/* The FDB's part for all frames of the batch that are addressed to us. */
static void settle_all(decoder *d)
{
    wn_batch *batch = d->batch;
    const uint32_t count = batch->n_frames; /* answers come behind */
    const uint32_t mtu = __atomic_load_n(&d->dp->port_mtu, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < count && i < WN_FDB_AHEAD; i++)
        wn_fdb_prefetch_frame(d->dp->fdb, &batch->frames[i]);
    for (uint32_t i = 0; i < count; i++) {
        wn_frame *frame = &batch->frames[i];
        if (i + WN_FDB_AHEAD < count)
            wn_fdb_prefetch_frame(d->dp->fdb, &batch->frames[i + WN_FDB_AHEAD]);
        if (!frame->deliver)
            continue;
        settle(d, frame);
        if (mtu && frame->len > mtu + WN_ETH_LEN)
            wn_narrow(d->dp, batch, frame, d->tables->ourself, mtu, d->now_s);
    }
}

/* Sender of the datagram at `data`; false if it is nobody's that we listen to. */
static bool open_sender(decoder *d, const uint8_t *data, uint32_t len, uint8_t state)
{
    if (len < WN_NAME_LEN) {
        stray(d, WN_C_DROP_SHORT_DATAGRAM);
        return false;
    }
    d->sender = find(&d->senders, data);
    d->forwarder = WN_FORWARDER_NONE;
    if (d->sender != WN_PEER_NONE)
        d->forwarder = d->tables->peers[d->sender].forwarder;
    if (d->forwarder == WN_FORWARDER_NONE) {
        stray(d, WN_C_DROP_UNKNOWN_SENDER);
        return false;
    }
    if (state == WN_OPEN_PLAIN && d->dp->forwarders[d->forwarder].session) {
        stray(d, WN_C_DROP_PLAIN_ON_ENCRYPTED);
        return false;
    }
    return true;
}

/* Records of one datagram from offset *off on. False: the frame table is full, *off says where. */
static bool take_datagram(decoder *d, const wn_dgram *dgram, const uint8_t *data, uint32_t len,
                          uint8_t state, uint32_t *off)
{
    wn_record record;
    if (state == WN_OPEN_DROPPED || !open_sender(d, data, len, state))
        return true;
    uint32_t first = d->batch->n_frames;
    uint32_t at = *off ? *off : WN_NAME_LEN;
    uint64_t bytes = *off ? 0 : len;
    int got = 0;
    bool room = true;
    while ((room = d->batch->n_frames < WN_FRAMES) && (got = wn_sleeve_next(data + at, len - at, &record)) == 1) {
        take_record(d, dgram, &record);
        at += record.next;
    }
    if (room && got == WN_ERR_TRUNCATED)
        stray(d, WN_C_DROP_TRUNCATED_RECORD);
    else if (room && got == WN_ERR_TRAILING)
        stray(d, WN_C_DROP_TRAILING_BYTES);
    wn_forwarder *from = &d->dp->forwarders[d->forwarder];
    wn_add64(&from->rx_frames, d->batch->n_frames - first);
    if (bytes) {
        wn_add64(&from->rx_datagrams, 1);
        wn_add64(&from->rx_bytes, bytes);
    }
    d->frames += d->batch->n_frames - first;
    *off = room ? 0 : at;
    return room;
}

/* All datagrams of one receive slot; false when the frame table is full. */
static bool take_train(decoder *d, const wn_dgram *dgram)
{
    wn_batch *batch = d->batch;
    uint32_t step = dgram->gso_size ? dgram->gso_size : dgram->len;
    /* decap_off: bits above 16 count whole datagrams done, the low ones say where in the next */
    uint32_t done = batch->decap_off >> 16;
    uint32_t within = batch->decap_off & 0xffffu;
    do {
        uint32_t at = done * step;
        uint32_t len = dgram->len - at < step ? dgram->len - at : step;
        uint8_t state = wn_open_state(batch, batch->decap_dgram, done);
        uint32_t skip = state == WN_OPEN_DONE ? WN_SEAL_LEN : 0;
        if (!take_datagram(d, dgram, dgram->data + at + skip, len - skip, state, &within)) {
            batch->decap_off = (done << 16) | within;
            return false;
        }
        done++;
    } while (step && done * step < dgram->len);
    batch->decap_off = 0;
    return true;
}

int wn_decap(wn_datapath *dp, wn_batch *batch, uint32_t now_s)
{
    int more = 0;
    bool first = batch->decap_dgram == 0 && batch->decap_off == 0;
    batch->n_frames = 0;
    batch->n_events = 0;
    batch->n_injects = 0;
    batch->n_iovs = 0;
    batch->answers_used = 0;
    batch->encap_frame = batch->encap_hop = 0;
    if (first) {
        uint64_t datagrams = 0;
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < batch->n_dgrams; i++) {
            const wn_dgram *dgram = &batch->dgrams[i];
            datagrams += dgram->gso_size ? (dgram->len + dgram->gso_size - 1) / dgram->gso_size : 1;
            bytes += dgram->len;
        }
        wn_count(dp, WN_C_RECEIVED_DATAGRAMS, datagrams);
        wn_count(dp, WN_C_RECEIVED_BYTES, bytes);
    }
    pthread_rwlock_rdlock(&dp->lock);
    if (!dp->tables) {
        wn_count(dp, WN_C_DROP_UNKNOWN_SENDER, batch->n_dgrams);
        batch->decap_dgram = batch->n_dgrams;
        pthread_rwlock_unlock(&dp->lock);
        return 0;
    }
    decoder d = {.dp = dp,
                 .batch = batch,
                 .tables = dp->tables,
                 .senders = {.tables = dp->tables},
                 .sources = {.tables = dp->tables},
                 .destinations = {.tables = dp->tables},
                 .now_s = now_s};
    for (; batch->decap_dgram < batch->n_dgrams; batch->decap_dgram++) {
        if (!take_train(&d, &batch->dgrams[batch->decap_dgram])) {
            more = WN_MORE;
            break;
        }
    }
    pthread_mutex_lock(&dp->fdb_lock);
    wn_datapath_sweep(dp, now_s);
    settle_all(&d);
    pthread_mutex_unlock(&dp->fdb_lock);
    pthread_rwlock_unlock(&dp->lock);
    wn_count(dp, WN_C_RECEIVED_FRAMES, d.frames);
    return (int)batch->n_frames | more;
}
