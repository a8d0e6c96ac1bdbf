/* internal.h - what the stages share: the layout of a batch and of the datapath. */
#ifndef WN_INTERNAL_H
#define WN_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "weft_native.h"

#define WN_VNET_LEN 10
#define WN_HEADROOM 64u          /* before each captured frame: sender name, record header, vnet header */
#define WN_ANSWER_BYTES (128u * 1024u) /* for too-big answers, behind the receive slots */
#define WN_ANSWERS_AT (WN_DGRAMS * WN_DGRAM_SLOT)
#define WN_ARENA_BYTES (WN_ANSWERS_AT + WN_ANSWER_BYTES)
#define WN_HDR_BYTES (512u * 1024u)
#define WN_FRAMES 2048u
#define WN_RECS 8192u
#define WN_IOVS (2u * WN_RECS + 2u * WN_FRAMES)
#define WN_MSGS WN_RECS
#define WN_SEAL_BYTES (8u * 1024u * 1024u) /* sealed datagrams of a batch */
#define WN_SEAL_RESERVE (2u * 1024u * 1024u) /* more than one unit of encap makes */
#define WN_TRAIN_MAX 128u        /* sealed datagrams in one receive slot */
#define WN_USED_KEYS 4096u       /* session keys remembered, so that none is taken twice */
#define WN_EVENTS 64u
#define WN_SLOTS 64u
#define WN_DGRAMS 64u            /* receive slots */
#define WN_DGRAM_SLOT 65728u     /* 64 KiB and three cache lines: slots don't alias in the cache */
#define WN_CAPTURE_BUDGET (1024u * 1024u)
#define WN_SEGMENTS_MAX 1500u    /* pieces of one super-frame */
#define WN_GSO_SEGMENTS 64u      /* datagrams in one system call; older kernels take no more */
#define WN_IOV_PER_MSG 1024u     /* UIO_MAXIOV */
#define WN_DROP_NONE 0xffffu
#define WN_PEER_BROADCAST 0xfffeu

/* virtio-net header, host order as the TAP uses it (struct virtio_net_hdr). */
typedef struct wn_vnet {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len;
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
} wn_vnet;
#define WN_VNET_NEEDS_CSUM 1
#define WN_GSO_NONE 0
#define WN_GSO_TCPV4 1
#define WN_GSO_TCPV6 4
#define WN_GSO_UDP_L4 5
#define WN_GSO_ECN 0x80

typedef struct wn_frame {
    uint8_t *data;
    uint32_t len;
    uint16_t src_peer;
    uint16_t dst_peer;  /* WN_PEER_BROADCAST: flood */
    uint16_t from;      /* forwarder it came through, WN_FORWARDER_NONE: captured here */
    uint16_t drop;      /* WN_DROP_NONE or counter index */
    uint8_t deliver;
    uint8_t flood;
    uint8_t relay;
    uint8_t headroom;   /* 1: WN_HEADROOM writable bytes precede data */
    uint8_t here;       /* received: the destination is known to live on our bridge */
    uint8_t cut;        /* deliver in fragments: longer than the bridge takes */
    wn_vnet vnet;
    int32_t next;       /* of the same coalesced group, -1: last */
} wn_frame;

/* One sleeve record to send: p1 starts with the record header and has 6 writable bytes before it. */
typedef struct wn_out_rec {
    uint8_t *p1;
    const uint8_t *p2;
    uint32_t len1;
    uint32_t len2;
    int32_t next;
} wn_out_rec;

typedef struct wn_slot {
    uint16_t forwarder;
    uint8_t df;
    int32_t first;
    int32_t last;
    uint32_t count;
} wn_slot;

typedef struct wn_msg {
    uint32_t iov;
    uint32_t n_iov;
    uint32_t len;
    uint16_t gso_size;
    uint16_t datagrams;
    uint16_t frames;
    uint16_t forwarder;
    uint8_t df;
    uint8_t sealed;
    uint32_t key;           /* generation of the session it was packed for, 0: to go in clear */
    struct sockaddr_in to;
} wn_msg;

typedef struct wn_inject {
    wn_vnet vnet;
    uint32_t iov;
    uint32_t n_iov;
    uint32_t len;
    uint32_t frames;
} wn_inject;

typedef struct wn_dgram {
    uint8_t *data;
    uint32_t len;
    uint32_t gso_size;
    uint32_t addr;
    uint16_t port;
} wn_dgram;

typedef struct wn_session wn_session; /* crypto.h */
typedef struct wn_scratch wn_scratch;
enum { WN_OPEN_PLAIN = 0, WN_OPEN_DONE = 1, WN_OPEN_DROPPED = 2 };

struct wn_batch {
    uint8_t *arena;
    uint8_t *hdr;
    uint32_t arena_used;
    uint32_t answers_used;
    uint32_t hdr_used;
    wn_frame *frames;
    uint32_t n_frames;
    wn_out_rec *recs;
    uint32_t n_recs;
    wn_slot slots[WN_SLOTS];
    uint32_t n_slots;
    struct iovec *iovs;
    uint32_t n_iovs;
    wn_msg *msgs;
    uint32_t n_msgs;
    uint32_t next_msg;      /* first one not sent yet */
    wn_inject *injects;
    uint32_t n_injects;
    wn_dgram dgrams[WN_DGRAMS];
    uint32_t n_dgrams;
    uint32_t rx_vlen;       /* slots to offer next time */
    wn_event events[WN_EVENTS];
    uint32_t n_events;
    /* where a call that returned WN_MORE goes on */
    uint32_t encap_frame;
    uint32_t encap_hop;
    uint32_t decap_dgram;
    uint32_t decap_off;     /* within that datagram */
    /* sealing and opening; made on first use */
    uint8_t *seal;
    uint32_t seal_used;
    uint32_t packed_bytes;  /* of records, with what sealing may add */
    bool open_ran;
    uint8_t *opened;        /* WN_TRAIN_MAX per receive slot: WN_OPEN_ */
    wn_scratch *scratch;
    int err;
};

typedef struct wn_peer {
    uint8_t name[WN_NAME_LEN];
    uint16_t known;
    uint16_t forwarder;     /* set if neighbour */
    uint16_t via;           /* unicast next hop */
    uint16_t n_hops;
    uint32_t hops;          /* into wn_tables.hops */
} wn_peer;

struct wn_tables {
    uint16_t n_peers;
    uint16_t ourself;
    wn_peer *peers;
    uint16_t *hops;
    size_t n_hops;
    size_t cap_hops;
    uint16_t *index;        /* open-addressed: name -> peer */
    uint32_t index_mask;
};

typedef struct wn_forwarder {
    uint16_t in_use;
    uint16_t peer;
    uint8_t name[WN_NAME_LEN];
    struct sockaddr_in addr;
    uint32_t mtu;
    uint32_t overhead;
    uint32_t max_payload;
    int stack_frag;
    wn_session *session;    /* NULL: in clear */
    uint64_t tx_frames, tx_datagrams, tx_bytes;
    uint64_t rx_frames, rx_datagrams, rx_bytes;
} wn_forwarder;

struct wn_datapath {
    pthread_rwlock_t lock;       /* tables and forwarder settings */
    pthread_mutex_t fdb_lock;
    wn_tables *tables;
    wn_fdb *fdb;
    wn_forwarder *forwarders;
    uint32_t last_sweep_s;       /* under fdb_lock */
    uint32_t answer_epoch_s;     /* atomics: budget of ICMP answers per second */
    int32_t answer_budget;
    uint64_t used_keys[WN_USED_KEYS]; /* fingerprints, a ring; under lock */
    uint32_t next_used_key;
    uint32_t port_mtu;           /* atomic; of the bridge, 0: anything goes */
    uint32_t special_epoch_s;    /* the same for events about special frames */
    int32_t special_budget;
    uint64_t counters[WN_C__COUNT];
};

static inline void wn_count(wn_datapath *dp, int counter, uint64_t n)
{
    if (n)
        __atomic_fetch_add(&dp->counters[counter], n, __ATOMIC_RELAXED);
}

static inline void wn_add64(uint64_t *to, uint64_t n) { __atomic_fetch_add(to, n, __ATOMIC_RELAXED); }

/* With 100,000 MACs an FDB slot is a cache miss: ask for it this many frames ahead. */
#define WN_FDB_AHEAD 8u
void wn_fdb_prefetch(const wn_fdb *fdb, const uint8_t mac[WN_MAC_LEN]);
static inline void wn_fdb_prefetch_frame(const wn_fdb *fdb, const wn_frame *frame)
{
    if (frame->len >= WN_ETH_LEN) {
        wn_fdb_prefetch(fdb, frame->data);
        wn_fdb_prefetch(fdb, frame->data + WN_MAC_LEN);
    }
}

/* Once a minute, with the FDB's lock held: forget what has expired. Traffic drives it, no timer. */
void wn_datapath_sweep(wn_datapath *dp, uint32_t now_s);
uint16_t wn_tables_find(const wn_tables *tables, const uint8_t name[WN_NAME_LEN]);
wn_frame *wn_batch_add_frame(wn_batch *batch);
void wn_batch_add_event(wn_batch *batch, const wn_event *event);
void wn_forwarder_overhead(wn_forwarder *forwarder, uint32_t overhead); /* under the write lock */

/* session.c */
void wn_session_free(wn_session *session);
uint32_t wn_session_generation(const wn_session *session); /* 0: none */
void wn_scratch_free(wn_scratch *scratch);

/* What became of datagram k of receive slot i. */
static inline uint8_t wn_open_state(const wn_batch *batch, uint32_t i, uint32_t k)
{
    return batch->open_ran && k < WN_TRAIN_MAX ? batch->opened[i * WN_TRAIN_MAX + k] : (uint8_t)WN_OPEN_PLAIN;
}

/* segment.c: cut a super-frame; see there. */
typedef struct wn_cut {
    const wn_frame *frame;
    wn_view view;
    uint32_t gso_size;
    uint32_t header_len;
    uint32_t pieces;
} wn_cut;
int wn_cut_init(wn_cut *cut, const wn_frame *frame, const wn_view *view);
void wn_cut_limit(wn_cut *cut, uint32_t gso_size);
void wn_cut_piece(const wn_cut *cut, uint32_t index, uint8_t *header, const uint8_t **payload,
                  uint32_t *payload_len);

/* pack.c */
bool wn_pack_room(const wn_batch *batch, uint32_t recs, uint32_t hdr_bytes);
uint8_t *wn_pack_header(wn_batch *batch, uint32_t len);
wn_slot *wn_pack_slot(wn_batch *batch, uint16_t forwarder, uint8_t df);
void wn_pack_add(wn_batch *batch, wn_slot *slot, uint8_t *p1, uint32_t len1, const uint8_t *p2,
                 uint32_t len2);
void wn_pack_finish(wn_datapath *dp, wn_batch *batch);

/* coalesce.c: one frame, as it is, towards the bridge. False: no room. */
bool wn_inject_frame(wn_batch *batch, const wn_frame *frame);
/* A frame in two parts; the caller has looked for room. */
void wn_inject_parts(wn_batch *batch, uint8_t *head, uint32_t head_len, const uint8_t *rest,
                     uint32_t rest_len);

/* encap.c: within the number of too-big answers per second? */
bool wn_may_answer(wn_datapath *dp, uint32_t now_s);

/* narrow.c: what becomes of a frame for the bridge that is longer than the bridge takes. */
void wn_narrow(wn_datapath *dp, wn_batch *batch, wn_frame *frame, uint16_t ourself, uint32_t mtu,
               uint32_t now_s);
/* Inject a frame that wn_narrow marked, in pieces, and leave room for `others` more injects. */
void wn_inject_cut(wn_datapath *dp, wn_batch *batch, const wn_frame *frame, uint32_t others);

#endif
