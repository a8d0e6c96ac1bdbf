/* lookup.c - what becomes of a captured frame (spec: sleeve 4.1).
 *
 * Runs of frames between the same two MACs, which is what bulk traffic is, ask the FDB once per run
 * and batch.
 */
#include "bytes.h"
#include "internal.h"

/* 01:80:c2:00:00:00, spanning tree: never leaves the host. */
static const uint8_t stp_mac[WN_MAC_LEN] = {0x01, 0x80, 0xc2, 0, 0, 0};

/* Finish the checksum that the kernel left open in an ordinary frame. False: the header lies. */
static bool finish_checksum(wn_frame *frame)
{
    uint32_t start = frame->vnet.csum_start;
    uint32_t field = start + frame->vnet.csum_offset;
    if (start < WN_ETH_LEN || field + 2 > frame->len)
        return false;
    uint16_t sum = (uint16_t)~wn_csum_fold(wn_csum_add(frame->data + start, frame->len - start, 0));
    /* zero means "no checksum" in UDP; both forms of zero are equal in TCP */
    if (sum == 0)
        sum = 0xffff;
    wn_put16(frame->data + field, sum);
    frame->vnet.flags = 0;
    return true;
}

static void decide(wn_datapath *dp, const wn_tables *tables, wn_frame *frame, uint32_t now_s)
{
    int learned = wn_fdb_learn_local(dp->fdb, frame->data + WN_MAC_LEN, tables->ourself, now_s);
    if (learned == WN_LEARN_CONFLICT) {
        frame->drop = WN_C_DROP_REMOTE_SOURCE;
        return;
    }
    if (learned == WN_LEARN_NEW)
        wn_count(dp, WN_C_FDB_LEARNED, 1);
    else if (learned == WN_LEARN_FULL)
        wn_count(dp, WN_C_FDB_FULL, 1);
    if (memcmp(frame->data, stp_mac, WN_MAC_LEN) == 0) {
        frame->drop = WN_C_DROP_STP;
        return;
    }
    uint16_t peer = wn_fdb_lookup(dp->fdb, frame->data, now_s);
    frame->src_peer = tables->ourself;
    if (peer == tables->ourself) {
        frame->drop = WN_C_DROP_LOCAL_DESTINATION;
    } else if (peer != WN_PEER_NONE) {
        frame->relay = 1;
        frame->dst_peer = peer;
    } else {
        frame->flood = 1;
        frame->dst_peer = WN_PEER_BROADCAST;
    }
}

int wn_lookup(wn_datapath *dp, wn_batch *batch, uint32_t now_s)
{
    uint32_t going = 0;
    uint64_t bytes = 0;
    const wn_frame *last = NULL;
    pthread_rwlock_rdlock(&dp->lock);
    const wn_tables *tables = dp->tables;
    pthread_mutex_lock(&dp->fdb_lock);
    wn_datapath_sweep(dp, now_s);
    for (uint32_t i = 0; i < batch->n_frames && i < WN_FDB_AHEAD; i++)
        wn_fdb_prefetch_frame(dp->fdb, &batch->frames[i]);
    for (uint32_t i = 0; i < batch->n_frames; i++) {
        wn_frame *frame = &batch->frames[i];
        if (i + WN_FDB_AHEAD < batch->n_frames)
            wn_fdb_prefetch_frame(dp->fdb, &batch->frames[i + WN_FDB_AHEAD]);
        bytes += frame->len;
        if (frame->len < WN_ETH_LEN) {
            frame->drop = WN_C_DROP_SHORT_FRAME;
        } else if (!tables) {
            frame->drop = WN_C_DROP_NO_ROUTE;
        } else if (last && memcmp(last->data, frame->data, 2 * WN_MAC_LEN) == 0) {
            frame->src_peer = last->src_peer;
            frame->dst_peer = last->dst_peer;
            frame->relay = last->relay;
            frame->flood = last->flood;
            frame->drop = last->drop;
        } else {
            decide(dp, tables, frame, now_s);
            last = frame;
        }
        if (frame->drop == WN_DROP_NONE && (frame->vnet.flags & WN_VNET_NEEDS_CSUM) &&
            frame->vnet.gso_type == WN_GSO_NONE && !finish_checksum(frame)) {
            frame->drop = WN_C_DROP_BAD_OFFLOAD;
            frame->relay = frame->flood = 0;
            if (last == frame)
                last = NULL; /* its fault alone: nothing to repeat */
        }
        if (frame->drop != WN_DROP_NONE)
            wn_count(dp, frame->drop, 1);
        else
            going++;
    }
    pthread_mutex_unlock(&dp->fdb_lock);
    pthread_rwlock_unlock(&dp->lock);
    wn_count(dp, WN_C_CAPTURED_FRAMES, batch->n_frames);
    wn_count(dp, WN_C_CAPTURED_BYTES, bytes);
    return (int)going;
}
