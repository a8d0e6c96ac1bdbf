/* pack.c - records into datagrams, datagrams into messages for one sendmmsg (spec: sleeve 8.3).
 *
 * While a batch is encapsulated, records queue in a slot per neighbour and channel, in order. At the
 * end each slot is laid out: small records share a datagram up to the path's payload limit and
 * WN_AGGREGATE_MAX, runs of equally long datagrams share a message (UDP GSO). Nothing ever waits for
 * a fuller datagram.
 */
#include "internal.h"

bool wn_pack_room(const wn_batch *batch, uint32_t recs, uint32_t hdr_bytes)
{
    return batch->n_recs + recs <= WN_RECS && batch->hdr_used + hdr_bytes <= WN_HDR_BYTES &&
           batch->n_slots < WN_SLOTS && batch->packed_bytes <= WN_SEAL_BYTES - WN_SEAL_RESERVE;
}

/* Room for a record header and len bytes behind it, with 6 writable bytes before: points at the
 * record header. The caller has asked wn_pack_room for len + 48. */
uint8_t *wn_pack_header(wn_batch *batch, uint32_t len)
{
    uint8_t *at = batch->hdr + batch->hdr_used + WN_NAME_LEN;
    batch->hdr_used += (WN_NAME_LEN + WN_RECORD_LEN + len + 15u) & ~15u;
    return at;
}

wn_slot *wn_pack_slot(wn_batch *batch, uint16_t forwarder, uint8_t df)
{
    for (uint32_t i = batch->n_slots; i-- > 0;)
        if (batch->slots[i].forwarder == forwarder && batch->slots[i].df == df)
            return &batch->slots[i];
    wn_slot *slot = &batch->slots[batch->n_slots++];
    *slot = (wn_slot){.forwarder = forwarder, .df = df, .first = -1, .last = -1};
    return slot;
}

void wn_pack_add(wn_batch *batch, wn_slot *slot, uint8_t *p1, uint32_t len1, const uint8_t *p2,
                 uint32_t len2)
{
    int32_t at = (int32_t)batch->n_recs++;
    batch->recs[at] = (wn_out_rec){.p1 = p1, .p2 = p2, .len1 = len1, .len2 = len2, .next = -1};
    if (slot->last < 0)
        slot->first = at;
    else
        batch->recs[slot->last].next = at;
    slot->last = at;
    slot->count++;
    batch->packed_bytes += len1 + len2 + WN_NAME_LEN + WN_SEAL_LEN;
}

/* One datagram from the records at *at; moves *at on, returns its length, its records in *frames. */
static uint32_t put_datagram(wn_batch *batch, int32_t *at, uint32_t max_payload, const uint8_t *sender,
                             uint32_t *frames)
{
    uint32_t len = WN_NAME_LEN;
    uint32_t n = 0;
    while (*at >= 0 && n < WN_AGGREGATE_MAX) {
        const wn_out_rec *rec = &batch->recs[*at];
        uint32_t rec_len = rec->len1 + rec->len2;
        if (n > 0 && len + rec_len > max_payload)
            break;
        struct iovec *iov = &batch->iovs[batch->n_iovs++];
        iov->iov_base = rec->p1;
        iov->iov_len = rec->len1;
        if (n == 0) {
            memcpy(rec->p1 - WN_NAME_LEN, sender, WN_NAME_LEN);
            iov->iov_base = rec->p1 - WN_NAME_LEN;
            iov->iov_len += WN_NAME_LEN;
        }
        if (rec->len2) {
            iov = &batch->iovs[batch->n_iovs++];
            iov->iov_base = (void *)(uintptr_t)rec->p2;
            iov->iov_len = rec->len2;
        }
        len += rec_len;
        n++;
        *at = rec->next;
    }
    *frames = n;
    return len;
}

/* Can a datagram of `len` bytes in n_iov pieces ride on msg? All but the last are equally long; each
 * will grow by `growth` bytes when it is sealed. */
static bool joins(const wn_msg *msg, uint32_t len, uint32_t n_iov, uint32_t max_payload, uint32_t growth)
{
    return msg->datagrams < WN_GSO_SEGMENTS && msg->gso_size <= max_payload && len <= msg->gso_size &&
           msg->len == (uint32_t)msg->gso_size * msg->datagrams &&
           msg->len + len + (msg->datagrams + 1u) * growth <= WN_PAYLOAD_MAX &&
           msg->n_iov + n_iov <= WN_IOV_PER_MSG;
}

static void finish_slot(wn_batch *batch, const wn_slot *slot, const wn_forwarder *to, const uint8_t *sender)
{
    wn_msg *msg = NULL;
    int32_t at = slot->first;
    uint32_t growth = to->session ? WN_SEAL_LEN : 0;
    uint32_t max_payload = to->max_payload - growth;
    while (at >= 0) {
        uint32_t first_iov = batch->n_iovs;
        uint32_t frames = 0;
        uint32_t len = put_datagram(batch, &at, max_payload, sender, &frames);
        uint32_t n_iov = batch->n_iovs - first_iov;
        if (!msg || !joins(msg, len, n_iov, max_payload, growth)) {
            msg = &batch->msgs[batch->n_msgs++];
            *msg = (wn_msg){.iov = first_iov,
                            .gso_size = (uint16_t)len,
                            .forwarder = slot->forwarder,
                            .df = slot->df,
                            .key = wn_session_generation(to->session),
                            .to = to->addr};
        }
        msg->n_iov += n_iov;
        msg->len += len;
        msg->datagrams++;
        msg->frames = (uint16_t)(msg->frames + frames);
    }
}

/* Lay out all slots. Called under the datapath's read lock. */
void wn_pack_finish(wn_datapath *dp, wn_batch *batch)
{
    const uint8_t *sender = dp->tables->peers[dp->tables->ourself].name;
    for (uint32_t i = 0; i < batch->n_slots; i++)
        finish_slot(batch, &batch->slots[i], &dp->forwarders[batch->slots[i].forwarder], sender);
    batch->n_slots = 0;
    batch->n_recs = 0;
}
