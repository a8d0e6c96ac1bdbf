/* batch.c - one batch: its memory, and hand-made input and inspection for fakes, fuzzing and tests.
 *
 * The arena is mapped, not touched: pages that no traffic ever needed cost no memory.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "bytes.h"
#include "internal.h"

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void unmap(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes);
}

wn_batch *wn_batch_new(void)
{
    wn_batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return NULL;
    batch->arena = map(WN_ARENA_BYTES);
    batch->hdr = map(WN_HDR_BYTES);
    batch->frames = map(WN_FRAMES * sizeof *batch->frames);
    batch->recs = map(WN_RECS * sizeof *batch->recs);
    batch->iovs = map(WN_IOVS * sizeof *batch->iovs);
    batch->msgs = map(WN_MSGS * sizeof *batch->msgs);
    batch->injects = map(WN_FRAMES * sizeof *batch->injects);
    if (!batch->arena || !batch->hdr || !batch->frames || !batch->recs || !batch->iovs ||
        !batch->msgs || !batch->injects) {
        wn_batch_free(batch);
        return NULL;
    }
    batch->rx_vlen = WN_DGRAMS;
    return batch;
}

void wn_batch_free(wn_batch *batch)
{
    if (!batch)
        return;
    unmap(batch->arena, WN_ARENA_BYTES);
    unmap(batch->hdr, WN_HDR_BYTES);
    unmap(batch->frames, WN_FRAMES * sizeof *batch->frames);
    unmap(batch->recs, WN_RECS * sizeof *batch->recs);
    unmap(batch->iovs, WN_IOVS * sizeof *batch->iovs);
    unmap(batch->msgs, WN_MSGS * sizeof *batch->msgs);
    unmap(batch->injects, WN_FRAMES * sizeof *batch->injects);
    unmap(batch->seal, WN_SEAL_BYTES);
    free(batch->opened);
    wn_scratch_free(batch->scratch);
    free(batch);
}

void wn_batch_reset(wn_batch *batch)
{
    batch->arena_used = 0;
    batch->answers_used = 0;
    batch->hdr_used = 0;
    batch->n_frames = 0;
    batch->n_recs = 0;
    batch->n_slots = 0;
    batch->n_iovs = 0;
    batch->n_msgs = 0;
    batch->next_msg = 0;
    batch->n_injects = 0;
    batch->n_dgrams = 0;
    batch->n_events = 0;
    batch->encap_frame = 0;
    batch->encap_hop = 0;
    batch->decap_dgram = 0;
    batch->decap_off = 0;
    batch->seal_used = 0;
    batch->packed_bytes = 0;
    batch->open_ran = false;
    batch->err = 0;
}

int wn_batch_errno(const wn_batch *batch) { return batch->err; }
int wn_batch_frames(const wn_batch *batch) { return (int)batch->n_frames; }
int wn_batch_msgs(const wn_batch *batch) { return (int)batch->n_msgs; }
int wn_batch_injects(const wn_batch *batch) { return (int)batch->n_injects; }
int wn_batch_events(const wn_batch *batch) { return (int)batch->n_events; }

int wn_batch_event(const wn_batch *batch, int index, wn_event *out)
{
    if (index < 0 || (uint32_t)index >= batch->n_events)
        return WN_ERR_RANGE;
    *out = batch->events[index];
    return WN_OK;
}

/* Events past the table are lost: each is a hint that its sender repeats. */
void wn_batch_add_event(wn_batch *batch, const wn_event *event)
{
    if (batch->n_events < WN_EVENTS)
        batch->events[batch->n_events++] = *event;
}

wn_frame *wn_batch_add_frame(wn_batch *batch)
{
    if (batch->n_frames == WN_FRAMES)
        return NULL;
    wn_frame *frame = &batch->frames[batch->n_frames++];
    *frame = (wn_frame){.src_peer = WN_PEER_NONE,
                        .dst_peer = WN_PEER_NONE,
                        .from = WN_FORWARDER_NONE,
                        .drop = WN_DROP_NONE,
                        .next = -1};
    return frame;
}

int wn_batch_put_captured(wn_batch *batch, const uint8_t *vnet, const uint8_t *frame, size_t len)
{
    if (len > WN_FRAME_MAX + 64u)
        return WN_ERR_RANGE;
    if (batch->arena_used + WN_HEADROOM + len > WN_ANSWERS_AT)
        return WN_ERR_FULL;
    wn_frame *to = wn_batch_add_frame(batch);
    if (!to)
        return WN_ERR_FULL;
    to->data = batch->arena + batch->arena_used + WN_HEADROOM;
    to->len = (uint32_t)len;
    to->headroom = 1;
    memcpy(to->data, frame, len);
    if (vnet)
        memcpy(&to->vnet, vnet, WN_VNET_LEN);
    batch->arena_used += (WN_HEADROOM + (uint32_t)len + 63u) & ~63u;
    return WN_OK;
}

int wn_batch_put_datagram(wn_batch *batch, const uint8_t *data, size_t len, uint16_t gso_size,
                          uint32_t addr, uint16_t port)
{
    if (len > WN_FRAME_MAX)
        return WN_ERR_RANGE;
    if (batch->n_dgrams == WN_DGRAMS)
        return WN_ERR_FULL;
    uint8_t *to = batch->arena + (size_t)batch->n_dgrams * WN_DGRAM_SLOT;
    memcpy(to, data, len);
    batch->dgrams[batch->n_dgrams++] =
        (wn_dgram){.data = to, .len = (uint32_t)len, .gso_size = gso_size, .addr = addr, .port = port};
    return WN_OK;
}

int wn_batch_frame_info(const wn_batch *batch, int index, wn_frame_info *out)
{
    if (index < 0 || (uint32_t)index >= batch->n_frames)
        return WN_ERR_RANGE;
    const wn_frame *frame = &batch->frames[index];
    *out = (wn_frame_info){.len = frame->len,
                           .src_peer = frame->src_peer,
                           .dst_peer = frame->dst_peer,
                           .drop = frame->drop,
                           .deliver = frame->deliver,
                           .flood = frame->flood,
                           .relay = frame->relay,
                           .gso_type = frame->vnet.gso_type,
                           .gso_size = frame->vnet.gso_size,
                           .received = frame->from != WN_FORWARDER_NONE};
    if (frame->len >= WN_ETH_LEN) {
        memcpy(out->dst_mac, frame->data, WN_MAC_LEN);
        memcpy(out->src_mac, frame->data + WN_MAC_LEN, WN_MAC_LEN);
        out->ethertype = wn_get16(frame->data + 2 * WN_MAC_LEN);
    }
    return WN_OK;
}

int wn_batch_msg_info(const wn_batch *batch, int index, wn_msg_info *out)
{
    if (index < 0 || (uint32_t)index >= batch->n_msgs)
        return WN_ERR_RANGE;
    const wn_msg *msg = &batch->msgs[index];
    *out = (wn_msg_info){.len = msg->len,
                         .gso_size = msg->datagrams > 1 ? msg->gso_size : 0,
                         .datagrams = msg->datagrams,
                         .frames = msg->frames,
                         .forwarder = msg->forwarder,
                         .df = msg->df};
    return WN_OK;
}

/* Gather n iovecs; the length, or WN_ERR_RANGE if cap is too small. */
static int gather(const struct iovec *iov, uint32_t n, uint8_t *out, size_t cap)
{
    size_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (iov[i].iov_len > cap - used)
            return WN_ERR_RANGE;
        memcpy(out + used, iov[i].iov_base, iov[i].iov_len);
        used += iov[i].iov_len;
    }
    return (int)used;
}

int wn_batch_msg_copy(const wn_batch *batch, int index, uint8_t *out, size_t cap)
{
    if (index < 0 || (uint32_t)index >= batch->n_msgs)
        return WN_ERR_RANGE;
    const wn_msg *msg = &batch->msgs[index];
    return gather(batch->iovs + msg->iov, msg->n_iov, out, cap);
}

int wn_batch_inject_copy(const wn_batch *batch, int index, uint8_t vnet[10], uint8_t *out, size_t cap)
{
    if (index < 0 || (uint32_t)index >= batch->n_injects)
        return WN_ERR_RANGE;
    const wn_inject *inject = &batch->injects[index];
    memcpy(vnet, &inject->vnet, WN_VNET_LEN);
    /* iovec 0 is the virtio header */
    return gather(batch->iovs + inject->iov + 1, inject->n_iov - 1, out, cap);
}

int wn_batch_transfer(wn_batch *from, wn_batch *to, uint32_t addr, uint16_t port)
{
    int moved = 0;
    for (; from->next_msg < from->n_msgs; from->next_msg++) {
        const wn_msg *msg = &from->msgs[from->next_msg];
        if (to->n_dgrams == WN_DGRAMS)
            break;
        uint8_t *slot = to->arena + (size_t)to->n_dgrams * WN_DGRAM_SLOT;
        int len = gather(from->iovs + msg->iov, msg->n_iov, slot, WN_DGRAM_SLOT);
        if (len < 0)
            continue;
        to->dgrams[to->n_dgrams++] = (wn_dgram){.data = slot,
                                                .len = (uint32_t)len,
                                                .gso_size = msg->datagrams > 1 ? msg->gso_size : 0,
                                                .addr = addr,
                                                .port = port};
        moved++;
    }
    return moved;
}
