/* seal.c - messages for encrypted neighbours into sealed datagrams, just before they are sent.
 *
 * The pieces of each datagram are gathered behind one another in memory of the batch's own, with room for
 * field and tag, and encrypted there: payloads may be shared by several neighbours, so they stay as they
 * are. Datagrams of one message keep being equally long, so UDP GSO works as before. Sequence numbers are
 * taken for a whole message at a time.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "bytes.h"
#include "crypto.h"

#define SEAL_AT 64u /* the first datagram's place */

typedef struct sealer {
    wn_datapath *dp;
    wn_batch *batch;
    wn_scratch *scratch;
} sealer;

/* A walk over iovecs. */
typedef struct cursor {
    const struct iovec *iov;
    uint32_t left; /* iovecs */
    size_t off;
} cursor;

static void take(cursor *from, uint8_t *to, size_t len)
{
    while (len > 0 && from->left > 0) {
        size_t here = from->iov->iov_len - from->off;
        size_t n = here < len ? here : len;
        memcpy(to, (const uint8_t *)from->iov->iov_base + from->off, n);
        to += n;
        len -= n;
        from->off += n;
        if (from->off == from->iov->iov_len) {
            from->iov++;
            from->left--;
            from->off = 0;
        }
    }
}

/* Sequence numbers for n datagrams; false when there are not as many left. */
static bool reserve(wn_session *session, int df, uint64_t n, uint64_t *first)
{
    uint64_t next = __atomic_load_n(&session->next[df], __ATOMIC_RELAXED);
    do {
        if (next > WN_SEQUENCE_END - n)
            return false;
    } while (!__atomic_compare_exchange_n(&session->next[df], &next, next + n, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    *first = next;
    return true;
}

/* This epoch's subkey into the scratch: kept by the session, copied because another thread may go on. */
static void subkey(const sealer *s, wn_session *session, int df, uint64_t epoch)
{
    wn_gcm_key *kept = &session->tx.gcm[df][epoch & 1u];
    pthread_mutex_lock(&session->tx_lock);
    if (!kept->valid || kept->epoch != epoch)
        wn_gcm_derive(kept, session->key, session->tx.role, df, epoch);
    memcpy(&s->scratch->key, kept, sizeof *kept);
    pthread_mutex_unlock(&session->tx_lock);
}

static bool all_good(const wn_boxes *boxes)
{
    for (uint32_t i = 0; i < boxes->n; i++)
        if (!boxes->good[i])
            return false;
    return true;
}

static bool run(const sealer *s, wn_session *session, wn_boxes *boxes)
{
    if (session->cipher == WN_CIPHER_SECRETBOX) {
        wn_secretbox_seal(s->scratch, session->tx.salsa_key, boxes);
        return true;
    }
    wn_gcm_seal(s->scratch, &s->scratch->key, session->tx.role, boxes);
    return all_good(boxes);
}

/* Gather and seal all datagrams of a message at `out`, numbered from `sequence`. */
static bool seal_datagrams(const sealer *s, wn_session *session, const wn_msg *msg, uint8_t *out,
                           uint64_t sequence)
{
    cursor from = {.iov = s->batch->iovs + msg->iov, .left = msg->n_iov};
    int df = msg->df != 0;
    uint64_t epoch = ~0ull;
    uint32_t left = msg->len;
    wn_boxes boxes = {.n = 0};
    while (left > 0) {
        uint32_t len = left < msg->gso_size ? left : msg->gso_size;
        if (session->cipher == WN_CIPHER_GCM && sequence >> WN_WINDOW_BITS != epoch) {
            if (boxes.n && !run(s, session, &boxes))
                return false;
            boxes.n = 0;
            epoch = sequence >> WN_WINDOW_BITS;
            subkey(s, session, df, epoch);
        }
        take(&from, out, WN_NAME_LEN);
        uint64_t field = sequence | (df ? WN_SEQUENCE_END : 0);
        wn_put32(out + WN_FIELD_AT, (uint32_t)(field >> 32));
        wn_put32(out + WN_FIELD_AT + 4, (uint32_t)field);
        take(&from, out + WN_BOX_AT, len - WN_NAME_LEN);
        boxes.data[boxes.n] = out;
        boxes.len[boxes.n++] = len + WN_SEAL_LEN;
        if (boxes.n == WN_BATCH_BOXES) {
            if (!run(s, session, &boxes))
                return false;
            boxes.n = 0;
        }
        out += len + WN_SEAL_LEN;
        left -= len;
        sequence++;
    }
    return boxes.n == 0 || run(s, session, &boxes);
}

/* WN_DROP_NONE, or the counter that says why the message must not be sent. */
static int seal_message(const sealer *s, wn_msg *msg)
{
    wn_session *session = s->dp->forwarders[msg->forwarder].session;
    uint32_t sealed = msg->len + msg->datagrams * WN_SEAL_LEN;
    uint64_t sequence = 0;
    if ((session ? session->generation : 0) != msg->key)
        return WN_C_DROP_KEY_CHANGED;
    if (!session || msg->sealed)
        return WN_DROP_NONE;
    if (sealed > WN_PAYLOAD_MAX)
        return WN_C_DROP_FRAME_TOO_LONG;
    if (!s->batch->seal || !s->scratch || s->batch->seal_used + sealed > WN_SEAL_BYTES - SEAL_AT)
        return WN_C_DROP_BATCH_FULL;
    if (!reserve(session, msg->df != 0, msg->datagrams, &sequence))
        return WN_C_DROP_NONCE_EXHAUSTED;
    uint8_t *out = s->batch->seal + SEAL_AT + s->batch->seal_used;
    if (!seal_datagrams(s, session, msg, out, sequence))
        return WN_C_DROP_BATCH_FULL;
    s->batch->seal_used += (sealed + 63u) & ~63u;
    s->batch->iovs[msg->iov] = (struct iovec){.iov_base = out, .iov_len = sealed};
    msg->n_iov = 1;
    msg->len = sealed;
    msg->gso_size = (uint16_t)(msg->gso_size + WN_SEAL_LEN);
    msg->sealed = 1;
    return WN_DROP_NONE;
}

static void prepare(sealer *s)
{
    wn_batch *batch = s->batch;
    if (!batch->seal) {
        void *map = mmap(NULL, WN_SEAL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        batch->seal = map == MAP_FAILED ? NULL : map;
    }
    if (!batch->scratch)
        batch->scratch = wn_scratch_new();
    s->scratch = batch->scratch;
}

int wn_seal(wn_datapath *dp, wn_batch *batch)
{
    sealer s = {.dp = dp, .batch = batch, .scratch = batch->scratch};
    uint32_t kept = batch->next_msg;
    pthread_rwlock_rdlock(&dp->lock);
    for (uint32_t i = batch->next_msg; i < batch->n_msgs; i++) {
        wn_msg *msg = &batch->msgs[i];
        if (msg->key && !(batch->seal && s.scratch))
            prepare(&s);
        int why = seal_message(&s, msg);
        if (why != WN_DROP_NONE)
            wn_count(dp, why, msg->frames);
        else if (kept++ != i)
            batch->msgs[kept - 1] = *msg;
    }
    pthread_rwlock_unlock(&dp->lock);
    batch->n_msgs = kept;
    return (int)(kept - batch->next_msg);
}

int wn_batch_put_message(wn_datapath *dp, wn_batch *batch, uint16_t forwarder, int df, const uint8_t *records,
                         size_t len)
{
    int result = WN_ERR_RANGE;
    if (forwarder >= WN_FORWARDERS_MAX || len > WN_PAYLOAD_MAX - WN_NAME_LEN)
        return WN_ERR_RANGE;
    if (batch->n_msgs == WN_MSGS || batch->n_iovs == WN_IOVS ||
        batch->hdr_used + WN_NAME_LEN + len + 16u > WN_HDR_BYTES)
        return WN_ERR_FULL;
    pthread_rwlock_rdlock(&dp->lock);
    const wn_forwarder *to = &dp->forwarders[forwarder];
    if (dp->tables && to->in_use) {
        uint8_t *at = batch->hdr + batch->hdr_used;
        memcpy(at, dp->tables->peers[dp->tables->ourself].name, WN_NAME_LEN);
        if (len)
            memcpy(at + WN_NAME_LEN, records, len);
        uint32_t all = (uint32_t)len + WN_NAME_LEN;
        batch->hdr_used += (all + 15u) & ~15u;
        batch->iovs[batch->n_iovs] = (struct iovec){.iov_base = at, .iov_len = all};
        batch->msgs[batch->n_msgs++] = (wn_msg){.iov = batch->n_iovs++,
                                                .n_iov = 1,
                                                .len = all,
                                                .gso_size = (uint16_t)all,
                                                .datagrams = 1,
                                                .frames = 1,
                                                .forwarder = forwarder,
                                                .df = df != 0,
                                                .key = to->session ? to->session->generation : 0,
                                                .to = to->addr};
        result = WN_OK;
    }
    pthread_rwlock_unlock(&dp->lock);
    return result;
}
