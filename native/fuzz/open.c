/* Sealed datagrams through opening and decap, whole, cut, altered and repeated, between arbitrary bytes.
 * Only what was sealed and left alone may come out, once; everything else must be counted.
 * Input: cipher, then operations, see LLVMFuzzerTestOneInput() */
#include "bytes.h"
#include "internal.h"
#include "node.h"

#define RAW_MAX 2048u
#define SEALED_MAX 64u

enum { OP_SEAL, OP_ALTERED, OP_CUT, OP_REPEAT, OP_RAW, OP_FLUSH, OPS };

typedef struct pair {
    wn_datapath *dp[2];     /* A, and B which seals for A */
    wn_batch *batch[2];
    uint8_t sealed[SEALED_MAX][2048];
    size_t sizes[SEALED_MAX];
    uint8_t sent[SEALED_MAX];
    unsigned n_sealed;
    unsigned given;         /* datagrams and trains waiting in A's batch */
    unsigned expected;      /* of these: untouched, for the first time, not too old */
    uint64_t current[2];    /* A's windows, by the book */
} pair;

/* B's datapath: A is its neighbour on the forwarder that A has for B. */
static wn_datapath *new_sealer(void)
{
    wn_datapath *dp = wn_datapath_new();
    wn_tables *tables = wn_tables_new(PEERS, PEER_B, 1);
    CHECK(dp != NULL && tables != NULL);
    for (uint16_t peer = 0; peer < PEERS; peer++)
        CHECK(wn_tables_set_peer(tables, peer, NAMES[peer]) == WN_OK);
    CHECK(wn_tables_set_neighbour(tables, PEER_A, TO_B) == WN_OK);
    CHECK(wn_forwarder_set(dp, TO_B, PEER_A, NAMES[PEER_A], 0x0100007fu, 6783) == WN_OK);
    wn_datapath_swap(dp, tables);
    return dp;
}

static void seal_one(pair *p, source *from)
{
    uint8_t records[14 + 300];
    const size_t frame_len = 14 + take8(from);
    if (p->n_sealed == SEALED_MAX)
        return;
    memcpy(records, NAMES[PEER_B], 6);
    memcpy(records + 6, NAMES[PEER_A], 6);
    put16(records + 12, (unsigned)frame_len);
    memset(records + 14, 0, frame_len);
    memcpy(records + 14, MACS[PEER_A], 6);
    memcpy(records + 20, MACS[PEER_B], 6);
    const uint8_t how = take8(from);
    wn_session_info info;
    CHECK(wn_forwarder_get_session(p->dp[1], TO_B, &info) == WN_OK);
    const int df = how & 1;
    if (how & 2) /* near or over a window's edge */
        wn_forwarder_set_sequence(p->dp[1], TO_B, df, (df ? info.next_df : info.next_frag) + (how >> 2) * 0x1ffffull);
    wn_batch_reset(p->batch[1]);
    CHECK(wn_batch_put_message(p->dp[1], p->batch[1], TO_B, df, records, 14 + frame_len) == WN_OK);
    CHECK(wn_seal(p->dp[1], p->batch[1]) == 1);
    const int size = wn_batch_msg_copy(p->batch[1], 0, p->sealed[p->n_sealed], sizeof p->sealed[0]);
    CHECK(size == (int)(WN_SEALED_MIN + 14 + frame_len));
    p->sent[p->n_sealed] = 0;
    p->sizes[p->n_sealed++] = (size_t)size;
}

static void give(pair *p, const uint8_t *data, size_t size, uint16_t step)
{
    uint8_t *copy = exact_copy(data, size);
    CHECK(wn_batch_put_datagram(p->batch[0], copy, size, step, 0x0200007fu, 6783) == WN_OK);
    p->given++;
    free(copy);
}

/* A sealed datagram as it is, 1 to 8 times in one train. */
static void give_sealed(pair *p, unsigned at, unsigned times)
{
    static uint8_t train[8 * 2048];
    const size_t size = p->sizes[at];
    for (unsigned i = 0; i < times; i++)
        memcpy(train + i * size, p->sealed[at], size);
    give(p, train, times * size, (uint16_t)(times > 1 ? size : 0));
    const uint64_t field = (uint64_t)wn_get32(p->sealed[at] + 6) << 32 | wn_get32(p->sealed[at] + 10);
    const uint64_t window = (field & (1ull << 63) - 1) >> 20;
    uint64_t *current = &p->current[field >> 63];
    if (!p->sent[at] && window + 1 >= *current) {
        p->sent[at] = 1;
        p->expected++;
        *current = window > *current ? window : *current;
    }
}

/* Through the stages; what came out are exactly the fresh ones. */
static void flush(pair *p)
{
    int more = WN_MORE;
    unsigned frames = 0;
    const int opened = wn_open(p->dp[0], p->batch[0]);
    while (more) {
        const int got = wn_decap(p->dp[0], p->batch[0], NOW_S);
        more = got & WN_MORE;
        frames += (unsigned)got & ~(unsigned)WN_MORE;
    }
    CHECK(frames == (unsigned)opened);
    CHECK(frames == p->expected);
    p->given = p->expected = 0;
    wn_batch_reset(p->batch[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t raw[RAW_MAX];
    static pair p;
    static uint64_t runs;
    source from = {data, size};
    uint8_t key[32] = "fuzz";
    memcpy(key + 8, &runs, sizeof runs);
    runs++;
    const int cipher = 1 + (take8(&from) & 1);
    p = (pair){.dp = {new_node(), new_sealer()}, .batch = {wn_batch_new(), wn_batch_new()}};
    CHECK(wn_forwarder_set_key(p.dp[0], TO_B, cipher, key, 0) == WN_OK);
    CHECK(wn_forwarder_set_key(p.dp[1], TO_B, cipher, key, 1) == WN_OK);
    key[0] = 'C'; /* nobody may send A anything in clear */
    CHECK(wn_forwarder_set_key(p.dp[0], TO_C, cipher, key, 0) == WN_OK);
    while (from.left > 0) {
        const uint8_t op = take8(&from);
        const uint8_t which = take8(&from);
        const unsigned at = p.n_sealed ? which % p.n_sealed : 0;
        if (op % OPS == OP_SEAL) {
            seal_one(&p, &from);
        } else if (op % OPS == OP_FLUSH) {
            flush(&p);
        } else if (op % OPS == OP_RAW) {
            size_t got = 0;
            memcpy(raw, NAMES[PEER_B], 6);
            const uint8_t *bytes = take_bytes(&from, which * 4u, &got);
            if (got)
                memcpy(raw + 6, bytes, got);
            give(&p, raw, 6 + got, take8(&from) & 0x3f);
        } else if (p.n_sealed == 0) {
            continue;
        } else if (op % OPS == OP_ALTERED) {
            memcpy(raw, p.sealed[at], p.sizes[at]);
            raw[6 + take8(&from) % (p.sizes[at] - 6)] ^= (uint8_t)(1u << (take8(&from) & 7));
            give(&p, raw, p.sizes[at], 0);
        } else if (op % OPS == OP_CUT) {
            give(&p, p.sealed[at], take8(&from) % p.sizes[at], 0);
        } else {
            give_sealed(&p, at, 1 + (op >> 5));
        }
        if (p.given == WN_DGRAMS)
            flush(&p);
    }
    flush(&p);
    for (int i = 0; i < 2; i++) {
        wn_batch_free(p.batch[i]);
        wn_datapath_free(p.dp[i]);
    }
    return 0;
}
