/* fdb.c - MAC to peer, an open-addressed table with linear probing (spec: sleeve 3).
 *
 * An entry is 16 bytes: 48-bit MAC with a used bit, peer, last seen. The table doubles at 3/4 load up
 * to WN_FDB_CAPACITY entries; what does not fit then is not learnt (the frame is flooded) and counted
 * by the caller. Deletion shifts the following cluster back, so there are no tombstones and lookups
 * stay short however often MACs come and go. Not locked: the datapath holds its lock around calls.
 */
#include <stdlib.h>
#include <sys/random.h>

#include "internal.h"

#define USED (1ull << 63)
#define START_SLOTS 1024u

typedef struct slot {
    uint64_t key; /* USED | MAC */
    uint32_t last_seen_s;
    uint16_t peer;
    uint16_t pad;
} slot;

struct wn_fdb {
    slot *slots;
    size_t mask;
    size_t size;
    uint64_t seed; /* MACs are chosen by containers: their places must not be */
};

static uint64_t key_of(const uint8_t mac[WN_MAC_LEN])
{
    uint32_t high = 0;
    uint16_t low = 0;
    memcpy(&high, mac, 4);
    memcpy(&low, mac + 4, 2);
    return USED | ((uint64_t)high << 16) | low;
}

static size_t home_of(const wn_fdb *fdb, uint64_t key)
{
    uint64_t hash = (key ^ fdb->seed) * 0x9e3779b97f4a7c15ull;
    hash = (hash ^ (hash >> 29) ^ fdb->seed) * 0xbf58476d1ce4e5b9ull;
    return (size_t)(hash >> 20) & fdb->mask;
}

wn_fdb *wn_fdb_new(void)
{
    wn_fdb *fdb = calloc(1, sizeof *fdb);
    if (!fdb)
        return NULL;
    fdb->slots = calloc(START_SLOTS, sizeof *fdb->slots);
    if (!fdb->slots) {
        free(fdb);
        return NULL;
    }
    fdb->mask = START_SLOTS - 1;
    if (getrandom(&fdb->seed, sizeof fdb->seed, GRND_NONBLOCK) < 0)
        fdb->seed = (uint64_t)(uintptr_t)fdb->slots; /* early in boot: better than nothing */
    return fdb;
}

void wn_fdb_free(wn_fdb *fdb)
{
    if (fdb) {
        free(fdb->slots);
        free(fdb);
    }
}

/* The slot that holds key, or the free one where it belongs. */
static slot *find(wn_fdb *fdb, uint64_t key)
{
    size_t at = home_of(fdb, key);
    while (fdb->slots[at].key && fdb->slots[at].key != key)
        at = (at + 1) & fdb->mask;
    return &fdb->slots[at];
}

void wn_fdb_prefetch(const wn_fdb *fdb, const uint8_t mac[WN_MAC_LEN])
{
    __builtin_prefetch(&fdb->slots[home_of(fdb, key_of(mac))]);
}

static bool grow(wn_fdb *fdb)
{
    size_t old_slots = fdb->mask + 1;
    slot *old = fdb->slots;
    slot *bigger = calloc(old_slots * 2, sizeof *bigger);
    if (!bigger)
        return false;
    fdb->slots = bigger;
    fdb->mask = old_slots * 2 - 1;
    for (size_t i = 0; i < old_slots; i++)
        if (old[i].key)
            *find(fdb, old[i].key) = old[i];
    free(old);
    return true;
}

static bool expired(const slot *entry, uint32_t now_s)
{
    return now_s - entry->last_seen_s > WN_FDB_LIFETIME_S && now_s >= entry->last_seen_s;
}

static int insert(wn_fdb *fdb, uint64_t key, uint16_t peer, uint32_t now_s)
{
    if (fdb->size >= WN_FDB_CAPACITY)
        return WN_LEARN_FULL;
    if ((fdb->size + 1) * 4 > (fdb->mask + 1) * 3 && !grow(fdb))
        return WN_LEARN_FULL;
    *find(fdb, key) = (slot){.key = key, .last_seen_s = now_s, .peer = peer};
    fdb->size++;
    return WN_LEARN_NEW;
}

static int refresh(slot *entry, uint32_t now_s)
{
    if (now_s - entry->last_seen_s > WN_FDB_REFRESH_S)
        entry->last_seen_s = now_s;
    return WN_LEARN_REFRESHED;
}

int wn_fdb_learn_local(wn_fdb *fdb, const uint8_t mac[WN_MAC_LEN], uint16_t ourself, uint32_t now_s)
{
    uint64_t key = key_of(mac);
    slot *entry = find(fdb, key);
    if (!entry->key)
        return insert(fdb, key, ourself, now_s);
    if (entry->peer == ourself)
        return refresh(entry, now_s);
    /* The original keeps a container that moves here mute until the old entry expires, which guards
     * against loops. In a loop the other peer is heard all the time, so a short silence tells. */
    if (now_s < entry->last_seen_s || now_s - entry->last_seen_s <= WN_FDB_TAKEOVER_S)
        return WN_LEARN_CONFLICT;
    entry->peer = ourself;
    entry->last_seen_s = now_s;
    return WN_LEARN_NEW;
}

int wn_fdb_learn_remote(wn_fdb *fdb, const uint8_t mac[WN_MAC_LEN], uint16_t peer, uint32_t now_s)
{
    uint64_t key = key_of(mac);
    slot *entry = find(fdb, key);
    if (!entry->key)
        return insert(fdb, key, peer, now_s);
    if (entry->peer == peer)
        return refresh(entry, now_s);
    entry->peer = peer;
    entry->last_seen_s = now_s;
    return WN_LEARN_MOVED;
}

uint16_t wn_fdb_lookup(wn_fdb *fdb, const uint8_t mac[WN_MAC_LEN], uint32_t now_s)
{
    const slot *entry = find(fdb, key_of(mac));
    if (!entry->key || expired(entry, now_s))
        return WN_PEER_NONE;
    return entry->peer;
}

/* Empty the slot at `hole` and pull back what probed past it. */
static void remove_at(wn_fdb *fdb, size_t hole)
{
    size_t at = hole;
    for (;;) {
        fdb->slots[hole].key = 0;
        for (;;) {
            at = (at + 1) & fdb->mask;
            if (!fdb->slots[at].key) {
                fdb->size--;
                return;
            }
            size_t home = home_of(fdb, fdb->slots[at].key);
            if (((at - home) & fdb->mask) >= ((at - hole) & fdb->mask))
                break;
        }
        fdb->slots[hole] = fdb->slots[at];
        hole = at;
    }
}

size_t wn_fdb_expire(wn_fdb *fdb, uint32_t now_s)
{
    size_t gone = 0;
    for (size_t i = 0; i <= fdb->mask;) {
        if (fdb->slots[i].key && expired(&fdb->slots[i], now_s)) {
            remove_at(fdb, i); /* may move another entry here: look again */
            gone++;
        } else {
            i++;
        }
    }
    return gone;
}

size_t wn_fdb_forget_peer(wn_fdb *fdb, uint16_t peer)
{
    size_t gone = 0;
    for (size_t i = 0; i <= fdb->mask;) {
        if (fdb->slots[i].key && fdb->slots[i].peer == peer) {
            remove_at(fdb, i);
            gone++;
        } else {
            i++;
        }
    }
    return gone;
}

size_t wn_fdb_size(const wn_fdb *fdb) { return fdb->size; }

size_t wn_fdb_dump(const wn_fdb *fdb, wn_fdb_entry *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i <= fdb->mask && n < cap; i++) {
        const slot *entry = &fdb->slots[i];
        if (!entry->key)
            continue;
        uint32_t high = (uint32_t)(entry->key >> 16);
        uint16_t low = (uint16_t)entry->key;
        memcpy(out[n].mac, &high, 4);
        memcpy(out[n].mac + 4, &low, 2);
        out[n].peer = entry->peer;
        out[n].last_seen_s = entry->last_seen_s;
        n++;
    }
    return n;
}
