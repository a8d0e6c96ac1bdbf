/* What Python may call of the datapath: native/include/weft_datapath.h and the FDB of weft_native.h,
 * without comments and directives. A test keeps them equal. */
#define WN_MORE ...
#define WN_FORWARDERS_MAX ...
#define WN_PEERS_MAX ...
#define WN_FORWARDER_NONE ...
#define WN_OVERHEAD_PLAIN ...
#define WN_OVERHEAD_ENCRYPTED ...
#define WN_MTU_INITIAL ...
#define WN_FDB_LIFETIME_S ...
#define WN_FDB_REFRESH_S ...
#define WN_FDB_SWEEP_S ...
#define WN_FDB_CAPACITY ...
#define WN_PEER_NONE ...
#define WN_C__COUNT ...
enum {
    WN_OK = 0,
    WN_ERR_TRUNCATED = -1,
    WN_ERR_TRAILING = -2,
    WN_ERR_NOMEM = -3,
    WN_ERR_RANGE = -4,
    WN_ERR_FULL = -5,
    WN_ERR_SYSCALL = -6,
    WN_ERR_AGAIN = -7
};
typedef struct wn_fdb wn_fdb;
typedef struct wn_fdb_entry {
    uint8_t mac[6];
    uint16_t peer;
    uint32_t last_seen_s;
} wn_fdb_entry;
enum { WN_LEARN_NEW = 1, WN_LEARN_REFRESHED = 2, WN_LEARN_MOVED = 3, WN_LEARN_CONFLICT = 4, WN_LEARN_FULL = 5 };
wn_fdb *wn_fdb_new(void);
void wn_fdb_free(wn_fdb *fdb);
int wn_fdb_learn_local(wn_fdb *fdb, const uint8_t mac[6], uint16_t ourself, uint32_t now_s);
int wn_fdb_learn_remote(wn_fdb *fdb, const uint8_t mac[6], uint16_t peer, uint32_t now_s);
uint16_t wn_fdb_lookup(wn_fdb *fdb, const uint8_t mac[6], uint32_t now_s);
size_t wn_fdb_expire(wn_fdb *fdb, uint32_t now_s);
size_t wn_fdb_forget_peer(wn_fdb *fdb, uint16_t peer);
size_t wn_fdb_size(const wn_fdb *fdb);
size_t wn_fdb_dump(const wn_fdb *fdb, wn_fdb_entry *out, size_t cap);
typedef struct wn_datapath wn_datapath;
typedef struct wn_tables wn_tables;
typedef struct wn_batch wn_batch;
wn_tables *wn_tables_new(uint16_t n_peers, uint16_t ourself, size_t broadcast_hops);
void wn_tables_free(wn_tables *tables);
int wn_tables_set_peer(wn_tables *tables, uint16_t peer, const uint8_t name[6]);
int wn_tables_set_neighbour(wn_tables *tables, uint16_t peer, uint16_t forwarder);
int wn_tables_set_unicast(wn_tables *tables, uint16_t peer, uint16_t forwarder);
int wn_tables_set_broadcast(wn_tables *tables, uint16_t source, const uint16_t *forwarders, uint16_t n);
wn_datapath *wn_datapath_new(void);
void wn_datapath_free(wn_datapath *dp);
void wn_datapath_swap(wn_datapath *dp, wn_tables *tables);
wn_fdb *wn_datapath_fdb(wn_datapath *dp);
size_t wn_datapath_fdb_dump(wn_datapath *dp, wn_fdb_entry *out, size_t cap, size_t *total);
void wn_datapath_counters(const wn_datapath *dp, uint64_t *out);
void wn_datapath_count(wn_datapath *dp, int counter, uint64_t n);
typedef struct wn_forwarder_stats {
    uint64_t tx_frames, tx_datagrams, tx_bytes;
    uint64_t rx_frames, rx_datagrams, rx_bytes;
    uint32_t mtu;
    uint32_t addr;
    uint16_t port;
} wn_forwarder_stats;
int wn_forwarder_set(wn_datapath *dp, uint16_t forwarder, uint16_t peer, const uint8_t name[6],
                     uint32_t addr, uint16_t port);
int wn_forwarder_set_mtu(wn_datapath *dp, uint16_t forwarder, uint32_t mtu, uint32_t overhead,
                         int stack_frag);
int wn_forwarder_clear(wn_datapath *dp, uint16_t forwarder);
void wn_datapath_set_port_mtu(wn_datapath *dp, uint32_t mtu);
int wn_forwarder_get_stats(wn_datapath *dp, uint16_t forwarder, wn_forwarder_stats *out);
enum { WN_EVENT_SPECIAL = 1, WN_EVENT_PATH_MTU = 2, WN_EVENT_SEND_ERROR = 3 };
typedef struct wn_event {
    uint8_t kind;
    uint8_t special;
    uint8_t all_zero;
    uint8_t pad;
    uint16_t forwarder;
    uint16_t port;
    uint32_t addr;
    uint32_t frame_len;
    int32_t err;
    uint64_t uid;
} wn_event;
typedef struct wn_msg_info {
    uint32_t len;
    uint16_t gso_size;
    uint16_t datagrams;
    uint16_t frames;
    uint16_t forwarder;
    uint8_t df;
} wn_msg_info;
typedef struct wn_frame_info {
    uint32_t len;
    uint16_t src_peer, dst_peer;
    uint16_t drop;
    uint8_t deliver, flood, relay;
    uint8_t gso_type;
    uint16_t gso_size;
    uint8_t received;
    uint8_t dst_mac[6], src_mac[6];
    uint16_t ethertype;
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
int wn_batch_put_captured(wn_batch *batch, const uint8_t *vnet, const uint8_t *frame, size_t len);
int wn_batch_put_datagram(wn_batch *batch, const uint8_t *data, size_t len, uint16_t gso_size,
                          uint32_t addr, uint16_t port);
int wn_batch_frame_info(const wn_batch *batch, int index, wn_frame_info *out);
int wn_batch_msg_info(const wn_batch *batch, int index, wn_msg_info *out);
int wn_batch_msg_copy(const wn_batch *batch, int index, uint8_t *out, size_t cap);
int wn_batch_inject_copy(const wn_batch *batch, int index, uint8_t vnet[10], uint8_t *out, size_t cap);
int wn_batch_transfer(wn_batch *from, wn_batch *to, uint32_t addr, uint16_t port);
int wn_lookup(wn_datapath *dp, wn_batch *batch, uint32_t now_s);
int wn_encap(wn_datapath *dp, wn_batch *batch, uint32_t now_s);
int wn_decap(wn_datapath *dp, wn_batch *batch, uint32_t now_s);
int wn_coalesce(wn_datapath *dp, wn_batch *batch, int use_gso);
enum { WN_PORT_TAP = 1, WN_PORT_PACKET = 2 };
int wn_port_read(wn_datapath *dp, wn_batch *batch, int fd, int kind, uint32_t most);
int wn_port_write(wn_datapath *dp, wn_batch *batch, int fd);
int wn_udp_recv(wn_datapath *dp, wn_batch *batch, int fd, uint32_t most);
int wn_udp_send(wn_datapath *dp, wn_batch *batch, int fd_df, int fd_frag);
int wn_udp_open(uint32_t addr, uint16_t port, int buffer_bytes, int *fd_df, int *fd_frag, int *err);
uint64_t wn_udp_drops(int fd);
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
