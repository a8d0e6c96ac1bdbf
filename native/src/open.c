/* open.c - received datagrams of encrypted neighbours, opened where they lie, before decap sees them.
 *
 * Each datagram of a train stands alone: it has its own sender name, field and tag. An opened one is a plain
 * datagram that begins WN_SEAL_LEN bytes later, its sender's name moved there. What became of each is noted
 * in batch->opened, which decap follows. Nothing of a session changes unless the datagram authenticates.
 */
#include <stdlib.h>

#include "bytes.h"
#include "crypto.h"

typedef struct opener {
    wn_datapath *dp;
    wn_batch *batch;
    wn_session *session;  /* of the datagrams collected, its rx_lock held */
    wn_boxes boxes;
    uint8_t *state[WN_BATCH_BOXES];
    int opened;
} opener;

static uint64_t field_of(const uint8_t *data)
{
    return (uint64_t)wn_get32(data + WN_FIELD_AT) << 32 | wn_get32(data + WN_FIELD_AT + 4);
}

static int channel_of(uint64_t field) { return field >> 63 != 0; }
static uint64_t sequence_of(uint64_t field) { return field & ~WN_SEQUENCE_END; }

/* Does a datagram that did not open read like a plain one? Then the neighbour has no key, or not this. */
static bool looks_plain(const wn_tables *tables, const uint8_t *data, uint32_t len)
{
    wn_record record;
    uint32_t at = WN_NAME_LEN;
    int got = 0;
    while ((got = wn_sleeve_next(data + at, len - at, &record)) == 1) {
        if (wn_tables_find(tables, record.src) == WN_PEER_NONE)
            return false;
        at += record.next;
    }
    return got == 0 && at > WN_NAME_LEN;
}

static void reject(const opener *o, uint8_t *state, const uint8_t *data, uint32_t len)
{
    *state = WN_OPEN_DROPPED;
    if (looks_plain(o->dp->tables, data, len))
        wn_count(o->dp, WN_C_DROP_PLAIN_ON_ENCRYPTED, 1);
    else
        wn_count(o->dp, len < WN_BOX_AT ? WN_C_DROP_SHORT_DATAGRAM : WN_C_DROP_DECRYPT, 1);
}

/* Authentic datagrams into the window: repeated ones are not good any more. */
static void check_window(opener *o)
{
    wn_boxes *boxes = &o->boxes;
    for (uint32_t i = 0; i < boxes->n; i++) {
        uint64_t field = field_of(boxes->data[i]);
        if (!boxes->good[i]) {
            reject(o, o->state[i], boxes->data[i], boxes->len[i]);
        } else if (!wn_window_accept(o->session->windows[channel_of(field)], sequence_of(field))) {
            boxes->good[i] = 0;
            *o->state[i] = WN_OPEN_DROPPED;
            wn_count(o->dp, WN_C_DROP_REPLAY, 1);
        } else {
            memmove(boxes->data[i] + WN_SEAL_LEN, boxes->data[i], WN_NAME_LEN);
            *o->state[i] = WN_OPEN_DONE;
            o->opened++;
        }
    }
}

static bool fits(const wn_gcm_key *key, uint64_t epoch) { return key->valid && key->epoch == epoch; }

/* One channel and epoch at a time; a subkey is kept once a datagram has opened with it, so that forged
 * sequence numbers cost their derivation and nothing else. */
static void open_gcm(opener *o)
{
    wn_boxes *all = &o->boxes;
    wn_direction *rx = &o->session->rx;
    for (uint32_t i = 0; i < all->n;) {
        uint64_t field = field_of(all->data[i]);
        uint64_t epoch = sequence_of(field) >> WN_WINDOW_BITS;
        wn_boxes some = {.n = 0};
        uint32_t end = i;
        for (; end < all->n; end++) {
            uint64_t other = field_of(all->data[end]);
            if (channel_of(other) != channel_of(field) || sequence_of(other) >> WN_WINDOW_BITS != epoch)
                break;
            some.data[some.n] = all->data[end];
            some.len[some.n++] = all->len[end];
        }
        wn_gcm_key *kept = &rx->gcm[channel_of(field)][epoch & 1u];
        wn_gcm_key *fresh = &o->batch->scratch->key;
        bool known = fits(kept, epoch);
        if (!known)
            wn_gcm_derive(fresh, o->session->key, rx->role, channel_of(field), epoch);
        wn_gcm_open(o->batch->scratch, known ? kept : fresh, rx->role, &some);
        bool any = false;
        for (uint32_t k = 0; k < some.n; k++) {
            all->good[i + k] = some.good[k];
            any = any || some.good[k];
        }
        if (any && !known && (!kept->valid || kept->epoch < epoch))
            memcpy(kept, fresh, sizeof *kept);
        i = end;
    }
}

static void flush(opener *o)
{
    if (o->boxes.n == 0)
        return;
    if (o->session->cipher == WN_CIPHER_GCM) {
        open_gcm(o);
        check_window(o);
    } else {
        wn_secretbox_verify(o->batch->scratch, o->session->rx.salsa_key, &o->boxes);
        check_window(o);
        wn_secretbox_decrypt(o->session->rx.salsa_key, &o->boxes);
    }
    o->boxes.n = 0;
}

static void use_session(opener *o, wn_session *session)
{
    if (session == o->session)
        return;
    flush(o);
    if (o->session)
        pthread_mutex_unlock(&o->session->rx_lock);
    o->session = session;
    if (session)
        pthread_mutex_lock(&session->rx_lock);
}

static void open_datagram(opener *o, uint8_t *data, uint32_t len, uint8_t *state)
{
    if (len < WN_NAME_LEN)
        return;
    uint16_t sender = wn_tables_find(o->dp->tables, data);
    if (sender == WN_PEER_NONE || o->dp->tables->peers[sender].forwarder == WN_FORWARDER_NONE)
        return; /* decap counts it */
    wn_session *session = o->dp->forwarders[o->dp->tables->peers[sender].forwarder].session;
    if (!session)
        return;
    if (len < WN_BOX_AT) {
        reject(o, state, data, len);
        return;
    }
    use_session(o, session);
    o->boxes.data[o->boxes.n] = data;
    o->boxes.len[o->boxes.n] = len;
    o->state[o->boxes.n++] = state;
    if (o->boxes.n == WN_BATCH_BOXES)
        flush(o);
}

static bool prepare(wn_batch *batch)
{
    if (!batch->opened)
        batch->opened = malloc(WN_DGRAMS * WN_TRAIN_MAX);
    if (!batch->scratch)
        batch->scratch = wn_scratch_new();
    return batch->opened && batch->scratch;
}

int wn_open(wn_datapath *dp, wn_batch *batch)
{
    if (batch->n_dgrams == 0 || batch->open_ran)
        return 0;
    opener o = {.dp = dp, .batch = batch};
    if (!prepare(batch)) {
        wn_count(dp, WN_C_DROP_BATCH_FULL, batch->n_dgrams);
        batch->n_dgrams = 0;
        return 0;
    }
    batch->open_ran = true;
    memset(batch->opened, WN_OPEN_PLAIN, batch->n_dgrams * WN_TRAIN_MAX);
    pthread_rwlock_rdlock(&dp->lock);
    for (uint32_t i = 0; dp->tables && i < batch->n_dgrams; i++) {
        const wn_dgram *dgram = &batch->dgrams[i];
        uint8_t *states = batch->opened + i * WN_TRAIN_MAX;
        uint32_t step = dgram->gso_size ? dgram->gso_size : dgram->len;
        uint32_t at = 0;
        for (uint32_t k = 0; k < WN_TRAIN_MAX && (k == 0 || at < dgram->len); k++, at += step)
            open_datagram(&o, dgram->data + at, dgram->len - at < step ? dgram->len - at : step, &states[k]);
    }
    use_session(&o, NULL);
    pthread_rwlock_unlock(&dp->lock);
    return o.opened;
}
