/* tables.c - peers, routes, forwarders and counters: what control decides and the stages read. */
#include <arpa/inet.h>
#include <stdlib.h>

#include "internal.h"

static uint32_t hash_name(const uint8_t name[WN_NAME_LEN])
{
    uint32_t a = 0;
    uint16_t b = 0;
    memcpy(&a, name, 4);
    memcpy(&b, name + 4, 2);
    uint64_t h = (((uint64_t)a << 16) | b) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32);
}

wn_tables *wn_tables_new(uint16_t n_peers, uint16_t ourself, size_t broadcast_hops)
{
    if (n_peers == 0 || n_peers > WN_PEERS_MAX || ourself >= n_peers)
        return NULL;
    wn_tables *tables = calloc(1, sizeof *tables);
    if (!tables)
        return NULL;
    uint32_t slots = 16;
    while (slots < 2u * n_peers)
        slots *= 2;
    tables->n_peers = n_peers;
    tables->ourself = ourself;
    tables->cap_hops = broadcast_hops;
    tables->index_mask = slots - 1;
    tables->peers = calloc(n_peers, sizeof *tables->peers);
    tables->hops = calloc(broadcast_hops + 1, sizeof *tables->hops);
    tables->index = malloc(slots * sizeof *tables->index);
    if (!tables->peers || !tables->hops || !tables->index) {
        wn_tables_free(tables);
        return NULL;
    }
    memset(tables->index, 0xff, slots * sizeof *tables->index);
    for (uint16_t i = 0; i < n_peers; i++) {
        tables->peers[i].forwarder = WN_FORWARDER_NONE;
        tables->peers[i].via = WN_FORWARDER_NONE;
    }
    return tables;
}

void wn_tables_free(wn_tables *tables)
{
    if (!tables)
        return;
    free(tables->peers);
    free(tables->hops);
    free(tables->index);
    free(tables);
}

uint16_t wn_tables_find(const wn_tables *tables, const uint8_t name[WN_NAME_LEN])
{
    uint32_t at = hash_name(name) & tables->index_mask;
    while (tables->index[at] != WN_PEER_NONE) {
        uint16_t peer = tables->index[at];
        if (memcmp(tables->peers[peer].name, name, WN_NAME_LEN) == 0)
            return peer;
        at = (at + 1) & tables->index_mask;
    }
    return WN_PEER_NONE;
}

int wn_tables_set_peer(wn_tables *tables, uint16_t peer, const uint8_t name[6])
{
    if (peer >= tables->n_peers || tables->peers[peer].known ||
        wn_tables_find(tables, name) != WN_PEER_NONE)
        return WN_ERR_RANGE;
    memcpy(tables->peers[peer].name, name, WN_NAME_LEN);
    tables->peers[peer].known = 1;
    uint32_t at = hash_name(name) & tables->index_mask;
    while (tables->index[at] != WN_PEER_NONE)
        at = (at + 1) & tables->index_mask;
    tables->index[at] = peer;
    return WN_OK;
}

int wn_tables_set_neighbour(wn_tables *tables, uint16_t peer, uint16_t forwarder)
{
    if (peer >= tables->n_peers || forwarder >= WN_FORWARDERS_MAX)
        return WN_ERR_RANGE;
    tables->peers[peer].forwarder = forwarder;
    return WN_OK;
}

int wn_tables_set_unicast(wn_tables *tables, uint16_t peer, uint16_t forwarder)
{
    if (peer >= tables->n_peers || forwarder >= WN_FORWARDERS_MAX)
        return WN_ERR_RANGE;
    tables->peers[peer].via = forwarder;
    return WN_OK;
}

int wn_tables_set_broadcast(wn_tables *tables, uint16_t source, const uint16_t *forwarders, uint16_t n)
{
    if (source >= tables->n_peers)
        return WN_ERR_RANGE;
    if (n > tables->cap_hops - tables->n_hops)
        return WN_ERR_FULL;
    for (uint16_t i = 0; i < n; i++)
        if (forwarders[i] >= WN_FORWARDERS_MAX)
            return WN_ERR_RANGE;
    tables->peers[source].hops = (uint32_t)tables->n_hops;
    tables->peers[source].n_hops = n;
    if (n)
        memcpy(tables->hops + tables->n_hops, forwarders, n * sizeof *forwarders);
    tables->n_hops += n;
    return WN_OK;
}

wn_datapath *wn_datapath_new(void)
{
    wn_datapath *dp = calloc(1, sizeof *dp);
    if (!dp)
        return NULL;
    dp->fdb = wn_fdb_new();
    dp->forwarders = calloc(WN_FORWARDERS_MAX, sizeof *dp->forwarders);
    if (!dp->fdb || !dp->forwarders) {
        wn_fdb_free(dp->fdb);
        free(dp->forwarders);
        free(dp);
        return NULL;
    }
    pthread_rwlock_init(&dp->lock, NULL);
    pthread_mutex_init(&dp->fdb_lock, NULL);
    return dp;
}

void wn_datapath_free(wn_datapath *dp)
{
    if (!dp)
        return;
    wn_tables_free(dp->tables);
    wn_fdb_free(dp->fdb);
    for (uint32_t i = 0; i < WN_FORWARDERS_MAX; i++)
        wn_session_free(dp->forwarders[i].session);
    free(dp->forwarders);
    pthread_rwlock_destroy(&dp->lock);
    pthread_mutex_destroy(&dp->fdb_lock);
    free(dp);
}

void wn_datapath_swap(wn_datapath *dp, wn_tables *tables)
{
    pthread_rwlock_wrlock(&dp->lock);
    wn_tables *old = dp->tables;
    dp->tables = tables;
    if (old) {
        pthread_mutex_lock(&dp->fdb_lock);
        for (uint16_t i = 0; i < old->n_peers; i++)
            if (old->peers[i].known && (i >= tables->n_peers || !tables->peers[i].known))
                wn_fdb_forget_peer(dp->fdb, i);
        if (old->ourself != tables->ourself)
            wn_fdb_forget_peer(dp->fdb, old->ourself);
        pthread_mutex_unlock(&dp->fdb_lock);
    }
    pthread_rwlock_unlock(&dp->lock);
    wn_tables_free(old);
}

void wn_datapath_sweep(wn_datapath *dp, uint32_t now_s)
{
    if (now_s - dp->last_sweep_s < WN_FDB_SWEEP_S)
        return;
    dp->last_sweep_s = now_s;
    wn_count(dp, WN_C_FDB_EXPIRED, wn_fdb_expire(dp->fdb, now_s));
}

wn_fdb *wn_datapath_fdb(wn_datapath *dp) { return dp->fdb; }

size_t wn_datapath_fdb_dump(wn_datapath *dp, wn_fdb_entry *out, size_t cap, size_t *total)
{
    pthread_mutex_lock(&dp->fdb_lock);
    size_t n = wn_fdb_dump(dp->fdb, out, cap);
    *total = wn_fdb_size(dp->fdb);
    pthread_mutex_unlock(&dp->fdb_lock);
    return n;
}

void wn_datapath_counters(const wn_datapath *dp, uint64_t *out)
{
    for (int i = 0; i < WN_C__COUNT; i++)
        out[i] = __atomic_load_n(&dp->counters[i], __ATOMIC_RELAXED);
}

void wn_datapath_count(wn_datapath *dp, int counter, uint64_t n)
{
    if (counter >= 0 && counter < WN_C__COUNT)
        wn_count(dp, counter, n);
}

static void set_mtu(wn_forwarder *f, uint32_t mtu, uint32_t overhead)
{
    f->mtu = mtu;
    f->overhead = overhead;
    uint32_t payload = mtu + overhead - WN_IP_UDP_LEN;
    f->max_payload = payload > WN_PAYLOAD_MAX ? WN_PAYLOAD_MAX : payload;
}

void wn_forwarder_overhead(wn_forwarder *forwarder, uint32_t overhead)
{
    set_mtu(forwarder, forwarder->mtu, overhead);
}

int wn_forwarder_set(wn_datapath *dp, uint16_t forwarder, uint16_t peer, const uint8_t name[6],
                     uint32_t addr, uint16_t port)
{
    if (forwarder >= WN_FORWARDERS_MAX)
        return WN_ERR_RANGE;
    pthread_rwlock_wrlock(&dp->lock);
    wn_forwarder *f = &dp->forwarders[forwarder];
    if (!f->in_use || f->peer != peer) {
        wn_session_free(f->session);
        memset(f, 0, sizeof *f);
        set_mtu(f, WN_MTU_INITIAL, WN_OVERHEAD_PLAIN);
    }
    f->in_use = 1;
    f->peer = peer;
    memcpy(f->name, name, WN_NAME_LEN);
    f->addr.sin_family = AF_INET;
    f->addr.sin_addr.s_addr = addr;
    f->addr.sin_port = htons(port);
    pthread_rwlock_unlock(&dp->lock);
    return WN_OK;
}

int wn_forwarder_set_mtu(wn_datapath *dp, uint16_t forwarder, uint32_t mtu, uint32_t overhead,
                         int stack_frag)
{
    if (forwarder >= WN_FORWARDERS_MAX || mtu > WN_MTU_INITIAL || mtu < 68 ||
        overhead < WN_OVERHEAD_PLAIN || overhead > 256)
        return WN_ERR_RANGE;
    pthread_rwlock_wrlock(&dp->lock);
    wn_forwarder *f = &dp->forwarders[forwarder];
    set_mtu(f, mtu, overhead);
    f->stack_frag = stack_frag;
    pthread_rwlock_unlock(&dp->lock);
    return WN_OK;
}

void wn_datapath_set_port_mtu(wn_datapath *dp, uint32_t mtu)
{
    __atomic_store_n(&dp->port_mtu, mtu > 0xffffu ? 0 : mtu, __ATOMIC_RELAXED);
}

int wn_forwarder_clear(wn_datapath *dp, uint16_t forwarder)
{
    if (forwarder >= WN_FORWARDERS_MAX)
        return WN_ERR_RANGE;
    pthread_rwlock_wrlock(&dp->lock);
    wn_session_free(dp->forwarders[forwarder].session);
    memset(&dp->forwarders[forwarder], 0, sizeof dp->forwarders[forwarder]);
    pthread_rwlock_unlock(&dp->lock);
    return WN_OK;
}

int wn_forwarder_get_stats(wn_datapath *dp, uint16_t forwarder, wn_forwarder_stats *out)
{
    if (forwarder >= WN_FORWARDERS_MAX)
        return WN_ERR_RANGE;
    pthread_rwlock_rdlock(&dp->lock);
    const wn_forwarder *f = &dp->forwarders[forwarder];
    out->tx_frames = __atomic_load_n(&f->tx_frames, __ATOMIC_RELAXED);
    out->tx_datagrams = __atomic_load_n(&f->tx_datagrams, __ATOMIC_RELAXED);
    out->tx_bytes = __atomic_load_n(&f->tx_bytes, __ATOMIC_RELAXED);
    out->rx_frames = __atomic_load_n(&f->rx_frames, __ATOMIC_RELAXED);
    out->rx_datagrams = __atomic_load_n(&f->rx_datagrams, __ATOMIC_RELAXED);
    out->rx_bytes = __atomic_load_n(&f->rx_bytes, __ATOMIC_RELAXED);
    out->mtu = f->mtu;
    out->addr = f->addr.sin_addr.s_addr;
    out->port = ntohs(f->addr.sin_port);
    pthread_rwlock_unlock(&dp->lock);
    return WN_OK;
}
