/* weft_datapath.h - batches, tables and the stages that work on them. Included by weft_native.h.
 *
 * Egress:  wn_port_read -> wn_lookup -> wn_encap -> (seal) -> wn_udp_send [-> wn_port_write for answers]
 * Ingress: wn_udp_recv  -> (open) -> wn_decap -> wn_coalesce -> wn_port_write [-> wn_encap -> wn_udp_send]
 *
 * A call that could not finish for want of room in the batch adds WN_MORE to its count: hand on what
 * there is, then call it again on the same batch.
 */
#ifndef WEFT_DATAPATH_H
#define WEFT_DATAPATH_H

#include <stddef.h>
#include <stdint.h>

#include "weft_counters.h"

typedef struct wn_datapath wn_datapath;
typedef struct wn_tables wn_tables;
typedef struct wn_batch wn_batch;

#define WN_MORE 0x40000000
#define WN_FORWARDERS_MAX 4096
#define WN_PEERS_MAX 16384
#define WN_FORWARDER_NONE 0xffffu
#define WN_OVERHEAD_PLAIN 62     /* IP+UDP 28, sender name 6, record 14, inner Ethernet 14 */
#define WN_OVERHEAD_ENCRYPTED 86
#define WN_MTU_INITIAL 65535

/* ---- tables: who is known, and where frames for them go (spec: sleeve 4, mesh 11) -------------- */
/* Empty tables for peer indices 0..n_peers-1, of which `ourself` is ours. Peer and forwarder indices
 * are chosen by the caller and must stay the same from one set of tables to the next. */
wn_tables *wn_tables_new(uint16_t n_peers, uint16_t ourself, size_t broadcast_hops);
void wn_tables_free(wn_tables *tables);
int wn_tables_set_peer(wn_tables *tables, uint16_t peer, const uint8_t name[6]);
/* The peer is a confirmed neighbour: datagrams that carry its name as sender are accepted. */
int wn_tables_set_neighbour(wn_tables *tables, uint16_t peer, uint16_t forwarder);
int wn_tables_set_unicast(wn_tables *tables, uint16_t peer, uint16_t forwarder);
/* Next hops for frames flooded by `source`; WN_ERR_FULL past broadcast_hops in total. */
int wn_tables_set_broadcast(wn_tables *tables, uint16_t source, const uint16_t *forwarders, uint16_t n);

wn_datapath *wn_datapath_new(void);
void wn_datapath_free(wn_datapath *dp);
/* Put new tables in force at once; the datapath owns them from here and frees the old ones. FDB
 * entries of peers that are not in the new tables are forgotten. */
void wn_datapath_swap(wn_datapath *dp, wn_tables *tables);
/* The FDB itself, for filling and inspection while no other thread runs stages. */
wn_fdb *wn_datapath_fdb(wn_datapath *dp);
/* Copy up to cap entries under the lock; *total gets how many there are. */
size_t wn_datapath_fdb_dump(wn_datapath *dp, wn_fdb_entry *out, size_t cap, size_t *total);
/* Copy of all counters; out needs WN_C__COUNT places. */
void wn_datapath_counters(const wn_datapath *dp, uint64_t *out);
void wn_datapath_count(wn_datapath *dp, int counter, uint64_t n);

/* ---- forwarders: the datagram side of a neighbour ------------------------------------------------ */
typedef struct wn_forwarder_stats {
    uint64_t tx_frames, tx_datagrams, tx_bytes;
    uint64_t rx_frames, rx_datagrams, rx_bytes;
    uint32_t mtu;
    uint32_t addr; /* IPv4, network order */
    uint16_t port; /* host order */
} wn_forwarder_stats;
/* addr in network order, port in host order; addr 0: not known yet, frames are dropped. */
int wn_forwarder_set(wn_datapath *dp, uint16_t forwarder, uint16_t peer, const uint8_t name[6],
                     uint32_t addr, uint16_t port);
/* mtu: overlay MTU; underlay payload limit becomes mtu + overhead - 28. */
int wn_forwarder_set_mtu(wn_datapath *dp, uint16_t forwarder, uint32_t mtu, uint32_t overhead,
                         int stack_frag);
int wn_forwarder_clear(wn_datapath *dp, uint16_t forwarder);
/* Longest IP packet that our bridge takes: what is longer is cut or answered (narrow.c). 0: no limit. */
void wn_datapath_set_port_mtu(wn_datapath *dp, uint32_t mtu);
int wn_forwarder_get_stats(wn_datapath *dp, uint16_t forwarder, wn_forwarder_stats *out);

/* ---- batches --------------------------------------------------------------------------------------- */
enum { WN_EVENT_SPECIAL = 1, WN_EVENT_PATH_MTU = 2, WN_EVENT_SEND_ERROR = 3 };
typedef struct wn_event {
    uint8_t kind;       /* WN_EVENT_ */
    uint8_t special;    /* WN_SPECIAL_ of a special frame */
    uint8_t all_zero;   /* of a fragmentation test */
    uint8_t pad;
    uint16_t forwarder;
    uint16_t port;      /* source port of the datagram, host order */
    uint32_t addr;      /* source address, network order */
    uint32_t frame_len; /* special: bytes of the frame; path MTU: bytes of the refused datagram */
    int32_t err;        /* send error: errno */
    uint64_t uid;       /* heartbeat: connection UID */
} wn_event;
typedef struct wn_msg_info {
    uint32_t len;        /* bytes of payload in all datagrams together */
    uint16_t gso_size;   /* bytes of each datagram but the last; 0: just one */
    uint16_t datagrams;
    uint16_t frames;
    uint16_t forwarder;
    uint8_t df;          /* 1: DF channel */
} wn_msg_info;
typedef struct wn_frame_info {
    uint32_t len;
    uint16_t src_peer, dst_peer;
    uint16_t drop;       /* counter of the drop reason, 0xffff: none */
    uint8_t deliver, flood, relay;
    uint8_t gso_type;
    uint16_t gso_size;
    uint8_t received;    /* from another peer, not from the bridge */
    uint8_t dst_mac[6], src_mac[6]; /* zeros if there is no Ethernet header */
    uint16_t ethertype;  /* host order, outermost; below 0x0600: an 802.3 length */
} wn_frame_info;

wn_batch *wn_batch_new(void);
void wn_batch_free(wn_batch *batch);
void wn_batch_reset(wn_batch *batch);
int wn_batch_errno(const wn_batch *batch);
int wn_batch_frames(const wn_batch *batch);
int wn_batch_msgs(const wn_batch *batch);
int wn_batch_injects(const wn_batch *batch);
int wn_batch_events(const wn_batch *batch);
int wn_batch_event(const wn_batch *batch, int index, wn_event *out);
/* Inspection and hand-made input, for fakes, fuzzing and the slow path. vnet: 10-byte virtio-net
 * header or NULL. Copies return the length or WN_ERR_RANGE. */
int wn_batch_put_captured(wn_batch *batch, const uint8_t *vnet, const uint8_t *frame, size_t len);
int wn_batch_put_datagram(wn_batch *batch, const uint8_t *data, size_t len, uint16_t gso_size,
                          uint32_t addr, uint16_t port);
int wn_batch_frame_info(const wn_batch *batch, int index, wn_frame_info *out);
int wn_batch_msg_info(const wn_batch *batch, int index, wn_msg_info *out);
int wn_batch_msg_copy(const wn_batch *batch, int index, uint8_t *out, size_t cap);
int wn_batch_inject_copy(const wn_batch *batch, int index, uint8_t vnet[10], uint8_t *out, size_t cap);
/* Move every message of `from` into `to` as received datagrams (one per message, with its GSO size):
 * a loss-free wire between two datapaths in one process. Returns how many fitted. */
int wn_batch_transfer(wn_batch *from, wn_batch *to, uint32_t addr, uint16_t port);

/* ---- stages ----------------------------------------------------------------------------------------- */
/* Decide for each captured frame (spec: sleeve 4.1). Returns the frames that go on. */
int wn_lookup(wn_datapath *dp, wn_batch *batch, uint32_t now_s);
/* Cut, fragment and pack frames that go to other peers (sleeve 4.3, 8); makes too-big answers.
 * Returns the messages now ready, plus WN_MORE. Earlier messages and injects are gone. */
int wn_encap(wn_datapath *dp, wn_batch *batch, uint32_t now_s);
/* Split received datagrams into frames and decide for each (sleeve 4.2, 5.3). Frames, plus WN_MORE. */
int wn_decap(wn_datapath *dp, wn_batch *batch, uint32_t now_s);
/* Join frames to deliver into super-frames with a virtio header. Returns the injects now ready. */
int wn_coalesce(wn_datapath *dp, wn_batch *batch, int use_gso);

/* ---- input and output ---------------------------------------------------------------------------------- */
enum { WN_PORT_TAP = 1, WN_PORT_PACKET = 2 };
/* Read captured frames until the kernel has no more, the batch is full, or `most` are there. Frames
 * read, 0 for none; WN_ERR_SYSCALL with errno when the port is gone or down. */
int wn_port_read(wn_datapath *dp, wn_batch *batch, int fd, int kind, uint32_t most);
/* Write all injects. Returns how many were written; losses are counted by reason. */
int wn_port_write(wn_datapath *dp, wn_batch *batch, int fd);
/* Receive datagrams, or trains of them, at most `most`. Count, 0 for none. */
int wn_udp_recv(wn_datapath *dp, wn_batch *batch, int fd, uint32_t most);
/* Send all messages. WN_OK, or WN_ERR_AGAIN when the socket would block: call again when writable. */
int wn_udp_send(wn_datapath *dp, wn_batch *batch, int fd_df, int fd_frag);
/* Open the sleeve socket pair; see io_udp.c. Stores two descriptors, or returns WN_ERR_SYSCALL with
 * *err set to errno. addr in network order (0: any). */
int wn_udp_open(uint32_t addr, uint16_t port, int buffer_bytes, int *fd_df, int *fd_frag, int *err);
/* Datagrams that the kernel dropped because the receive buffer was full. */
uint64_t wn_udp_drops(int fd);
/* Up to `most` captured frames, or datagrams, through all stages at once. 0: nothing there; WN_ERR_SYSCALL:
 * the port is gone; DONE: the batch is free again. Else the batch has to go on in the pipeline: into
 * the sending or delivering stage, and with _MORE there is work left behind as by WN_MORE. */
enum {
    WN_EXPRESS_DONE = 1,
    WN_EXPRESS_SEND = 2,
    WN_EXPRESS_SEND_MORE = 3,
    WN_EXPRESS_DELIVER = 4,
    WN_EXPRESS_DELIVER_MORE = 5
};
int wn_express_out(wn_datapath *dp, wn_batch *batch, int port_fd, int kind, int fd_df, int fd_frag,
                   uint32_t now_s, uint32_t most);
int wn_express_in(wn_datapath *dp, wn_batch *batch, int port_fd, int use_gso, int fd_df, int fd_frag,
                  uint32_t now_s, uint32_t most);

#endif
