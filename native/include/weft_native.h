/* weft_native.h - the data path of Weftnet: every type and call that Python or a fuzz target may use.
 *
 * Rules kept by the whole library:
 *   - no allocation per frame: a batch owns its memory from creation to destruction;
 *   - every pointer travels with its length; any bytes from the network are valid input;
 *   - a call returns a count >= 0 or one of the negative WN_ERR_ codes, never errno itself
 *     (batches carry the errno of a failed system call in wn_batch_errno());
 *   - nothing here knows Python; the GIL is released by cffi around every call;
 *   - integers on the wire are big-endian.
 *
 * Ownership: one batch belongs to one thread at a time. A wn_datapath may be used by any number of
 * threads at once: its tables are swapped under a read-write lock, its FDB has a lock of its own.
 */
#ifndef WEFT_NATIVE_H
#define WEFT_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/* ---- errors ------------------------------------------------------------------------------- */
enum {
    WN_OK = 0,
    WN_ERR_TRUNCATED = -1, /* a record or header runs past the end of its datagram or frame */
    WN_ERR_TRAILING = -2,  /* 1..13 octets behind the last record */
    WN_ERR_NOMEM = -3,     /* creation failed */
    WN_ERR_RANGE = -4,     /* an argument is outside what the call accepts */
    WN_ERR_FULL = -5,      /* a fixed table has no free place */
    WN_ERR_SYSCALL = -6,   /* see wn_batch_errno() */
    WN_ERR_AGAIN = -7      /* the kernel would block */
};

/* ---- sizes fixed by the protocol (spec: sleeve 5, 13) --------------------------------------- */
#define WN_NAME_LEN 6
#define WN_MAC_LEN 6
#define WN_ETH_LEN 14
#define WN_RECORD_LEN 14      /* src peer (6) | dst peer (6) | frame length (2) */
#define WN_FRAME_MAX 65535    /* what the 16-bit length of a record can say */
#define WN_PAYLOAD_MAX 65507  /* largest UDP payload over IPv4 */
#define WN_IP_UDP_LEN 28
#define WN_HEARTBEAT_LEN 22
#define WN_FRAG_TEST_LEN 60001
#define WN_PMTU_PROBE_LEN 60000
#define WN_MTU_FLOOR 552
#define WN_AGGREGATE_MAX 100  /* records in one datagram */

/* ---- checksums (RFC 1071, RFC 1624) ---------------------------------------------------------- */
/* Ones-complement sum of len bytes added to `sum`; the first byte has even weight. The result fits 16
 * bits; it may be passed on as `sum` again as long as the parts between are of even length. */
uint32_t wn_csum_add(const uint8_t *data, size_t len, uint32_t sum);
/* The portable form of the same, the oracle for the vectorised ones. */
uint32_t wn_csum_add_portable(const uint8_t *data, size_t len, uint32_t sum);
/* The same by the named implementation, added to *sum; WN_ERR_RANGE if this CPU can't run it. For tests
 * and benchmarks. */
int wn_csum_add_by(const char *backend, const uint8_t *data, size_t len, uint32_t *sum);
/* Name of the implementation that this CPU got: "avx512", "avx2" or "portable". */
const char *wn_csum_backend(void);
/* Fold to 16 bits in host order of a big-endian word stream; NOT complemented. */
uint16_t wn_csum_fold(uint32_t sum);
/* Pseudo-header sums; addrs points at source and destination address back to back (8 or 32 bytes). */
uint32_t wn_csum_pseudo4(const uint8_t *addrs, uint8_t proto, uint32_t l4_len);
uint32_t wn_csum_pseudo6(const uint8_t *addrs, uint8_t proto, uint32_t l4_len);
/* New checksum after one 16-bit word changed (RFC 1624 eqn. 3); values in host order. */
uint16_t wn_csum_update16(uint16_t csum, uint16_t before, uint16_t after);
/* Write the IPv4 header checksum of header_len bytes at ip. */
void wn_ip4_set_csum(uint8_t *ip, size_t header_len);

/* ---- frame view ------------------------------------------------------------------------------ */
enum {
    WN_VIEW_IPV4 = 1,      /* untagged, type 0x0800, valid header: the spec's "IPv4 frame" (sleeve 2.4) */
    WN_VIEW_DF = 2,        /* DF bit of that IPv4 header */
    WN_VIEW_FRAGMENT = 4,  /* IPv4 offset or MF not zero, or an IPv6 fragment header */
    WN_VIEW_L4 = 8,        /* l4_off, l4_proto and payload_off hold a complete TCP or UDP header, the whole
                              packet is within the frame and it is no fragment */
    WN_VIEW_EXT = 16,      /* IPv4 options or IPv6 extension headers are present */
    WN_VIEW_LATER = 32     /* a fragment whose offset is not zero: no L4 header follows */
};
typedef struct wn_view {
    uint32_t l3_off;       /* bytes from frame start to the IP header; 14 + 4 per VLAN tag */
    uint32_t l4_off;       /* to the TCP/UDP header (with WN_VIEW_L4) or behind the IP header(s) */
    uint32_t payload_off;  /* to the TCP/UDP payload (with WN_VIEW_L4) */
    uint32_t ip_len;       /* whole IP packet as its header says, header included; cut off at the frame's end */
    uint16_t ethertype;    /* innermost, host order; below 0x0600: an 802.3 length */
    uint8_t vlan_tags;     /* 0..2 */
    uint8_t ip_version;    /* 4, 6, or 0: neither, or a broken header (also set behind VLAN tags) */
    uint8_t l4_proto;      /* IP protocol number, 0 if ip_version is 0 */
    uint8_t flags;         /* WN_VIEW_ */
} wn_view;
/* Parse; WN_OK, or WN_ERR_TRUNCATED for fewer than 14 bytes. Never reads past len. */
int wn_frame_parse(const uint8_t *frame, size_t len, wn_view *view);

/* ---- sleeve codec (spec: sleeve 5, 6) --------------------------------------------------------- */
typedef struct wn_record {
    const uint8_t *src;    /* 6-byte peer name, inside the datagram */
    const uint8_t *dst;
    const uint8_t *frame;
    uint32_t frame_len;
    uint32_t next;         /* offset of the next record within the given bytes */
} wn_record;
enum { WN_SPECIAL_NONE = 0, WN_SPECIAL_HEARTBEAT = 1, WN_SPECIAL_FRAG_TEST = 2, WN_SPECIAL_PMTU = 3 };
/* Record at data (behind the sender name): 1 and *record, 0 at the clean end, WN_ERR_TRUNCATED or
 * WN_ERR_TRAILING. */
int wn_sleeve_next(const uint8_t *data, size_t len, wn_record *record);
/* Write the 14-byte record header. */
void wn_sleeve_put_record(uint8_t out[WN_RECORD_LEN], const uint8_t src[WN_NAME_LEN],
                          const uint8_t dst[WN_NAME_LEN], uint16_t frame_len);
/* WN_SPECIAL_ kind of a frame: NONE unless it starts with 14 zero bytes, else told by its length alone.
 * *all_zero (may be NULL) tells whether the frame is special and every byte of it is zero: a frag test
 * is to be acknowledged only then. */
int wn_sleeve_special(const uint8_t *frame, size_t len, int *all_zero);

/* ---- ICMP "too big" and IPv4 fragmentation (spec: sleeve 8.4, 8.5) ----------------------------- */
/* Build the Ethernet frame that tells the sender of `frame` to use `mtu`. Returns its length, or 0
 * if RFC 1122 3.2.2 / RFC 4443 2.4(e) forbid an answer (ICMP error inside, not the first fragment,
 * multicast or broadcast source or destination, unspecified source), the frame is not an IPv4 frame
 * (IPv6 packet), or cap is too small. out needs 14 + 20 + 8 + 68 bytes for IPv4 and 14 + 1280 for IPv6,
 * with 4 more for each VLAN tag of an IPv6 frame. */
size_t wn_icmp4_too_big(const uint8_t *frame, size_t len, uint16_t mtu, uint8_t *out, size_t cap);
size_t wn_icmp6_too_big(const uint8_t *frame, size_t len, uint32_t mtu, uint8_t *out, size_t cap);
/* Number of pieces of an IPv4 frame for `mtu`; 1 if it fits; WN_ERR_RANGE if mtu leaves no 8 bytes, DF
 * forbids it, the frame ends before its packet does, or it is not an IPv4 frame. */
int wn_ip4_fragment_count(const uint8_t *frame, size_t len, uint16_t mtu);
/* Build piece `index` (0-based) into out: frame length (padded to 60) or WN_ERR_RANGE. */
int wn_ip4_fragment_build(const uint8_t *frame, size_t len, uint16_t mtu, int index, uint8_t *out,
                          size_t cap);
/* The same without copying: Ethernet and IP header into out, their length returned; the rest of the
 * piece is *payload, *payload_len bytes of the frame. Never padded. */
#define WN_FRAGMENT_HEAD_MAX 74
int wn_ip4_fragment_head(const uint8_t *frame, size_t len, uint16_t mtu, int index,
                         uint8_t out[WN_FRAGMENT_HEAD_MAX], const uint8_t **payload, uint32_t *payload_len);

/* ---- FDB: MAC -> peer (spec: sleeve 3) ---------------------------------------------------------- */
typedef struct wn_fdb wn_fdb;
#define WN_FDB_LIFETIME_S 600
#define WN_FDB_REFRESH_S 1
#define WN_FDB_TAKEOVER_S 5
#define WN_FDB_SWEEP_S 60
#define WN_FDB_CAPACITY (1u << 18)
#define WN_PEER_NONE 0xffffu
typedef struct wn_fdb_entry {
    uint8_t mac[6];
    uint16_t peer;
    uint32_t last_seen_s;
} wn_fdb_entry;
enum { WN_LEARN_NEW = 1, WN_LEARN_REFRESHED = 2, WN_LEARN_MOVED = 3, WN_LEARN_CONFLICT = 4, WN_LEARN_FULL = 5 };
wn_fdb *wn_fdb_new(void);
void wn_fdb_free(wn_fdb *fdb);
/* A captured frame: `ourself` inserts or refreshes; an entry of another peer is kept (CONFLICT) unless
 * that peer has been silent for more than WN_FDB_TAKEOVER_S: then the container has moved here (NEW). */
int wn_fdb_learn_local(wn_fdb *fdb, const uint8_t mac[6], uint16_t ourself, uint32_t now_s);
/* A received frame addressed to us: insert, refresh or overwrite (MOVED). */
int wn_fdb_learn_remote(wn_fdb *fdb, const uint8_t mac[6], uint16_t peer, uint32_t now_s);
/* Peer index or WN_PEER_NONE. */
uint16_t wn_fdb_lookup(wn_fdb *fdb, const uint8_t mac[6], uint32_t now_s);
/* Forget what is older than WN_FDB_LIFETIME_S; returns how many went. */
size_t wn_fdb_expire(wn_fdb *fdb, uint32_t now_s);
size_t wn_fdb_forget_peer(wn_fdb *fdb, uint16_t peer);
size_t wn_fdb_size(const wn_fdb *fdb);
/* Copy up to cap entries in table order; returns the number copied. */
size_t wn_fdb_dump(const wn_fdb *fdb, wn_fdb_entry *out, size_t cap);

#include "weft_datapath.h"
#include "weft_crypto.h"

#endif
