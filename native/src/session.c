/* session.c - the encrypted side of a forwarder: keys, counters, windows; and single datagrams.
 *
 * A (key, nonce) pair is never used twice: counters only grow, a key in force is not set anew, and a key
 * once retired is refused. That a restarted process gets new keys is the control process's duty.
 */
#include <openssl/core_names.h>
#include <sodium.h>
#include <stdlib.h>

#include "bytes.h"
#include "crypto.h"

static int portable; /* atomic */
static pthread_once_t init_once = PTHREAD_ONCE_INIT;
static bool initialised;

static void init(void) { initialised = sodium_init() >= 0; }

bool wn_crypto_init(void)
{
    pthread_once(&init_once, init);
    return initialised;
}

bool wn_crypto_portable(void) { return __atomic_load_n(&portable, __ATOMIC_RELAXED) != 0; }
void wn_cipher_set_portable(int on) { __atomic_store_n(&portable, on, __ATOMIC_RELAXED); }

wn_scratch *wn_scratch_new(void)
{
    wn_scratch *scratch = NULL;
    if (!wn_crypto_init() || posix_memalign((void **)&scratch, 64, sizeof *scratch))
        return NULL;
    memset(scratch, 0, sizeof *scratch);
    EVP_MAC *poly = EVP_MAC_fetch(NULL, "POLY1305", NULL);
    if (poly)
        scratch->poly = EVP_MAC_CTX_new(poly); /* without it libsodium's is used */
    EVP_MAC_free(poly);
    scratch->gcm = EVP_CIPHER_CTX_new();
    if (!scratch->gcm) {
        wn_scratch_free(scratch);
        return NULL;
    }
    return scratch;
}

void wn_scratch_free(wn_scratch *scratch)
{
    if (!scratch)
        return;
    EVP_MAC_CTX_free(scratch->poly);
    EVP_CIPHER_CTX_free(scratch->gcm);
    sodium_memzero(scratch, sizeof *scratch);
    free(scratch);
}

static bool fill(wn_session *session, int cipher, const uint8_t key[WN_KEY_LEN], int outbound)
{
    session->cipher = (uint8_t)cipher;
    session->outbound = outbound != 0;
    memcpy(session->key, key, WN_KEY_LEN);
    session->tx.role = outbound ? WN_DIALLER : 0;
    session->rx.role = outbound ? 0 : WN_DIALLER;
    wn_secretbox_key(session->tx.salsa_key, key, session->tx.role);
    wn_secretbox_key(session->rx.salsa_key, key, session->rx.role);
    session->windows[0] = wn_window_new();
    session->windows[1] = wn_window_new();
    return session->windows[0] && session->windows[1];
}

wn_session *wn_session_new(int cipher, const uint8_t key[WN_KEY_LEN], int outbound)
{
    static uint32_t generations;
    wn_session *session = NULL;
    if (!wn_crypto_init() || posix_memalign((void **)&session, 64, sizeof *session))
        return NULL;
    memset(session, 0, sizeof *session);
    do
        session->generation = __atomic_add_fetch(&generations, 1, __ATOMIC_RELAXED);
    while (session->generation == 0);
    pthread_mutex_init(&session->tx_lock, NULL);
    pthread_mutex_init(&session->rx_lock, NULL);
    if (!fill(session, cipher, key, outbound)) {
        wn_session_free(session);
        return NULL;
    }
    return session;
}

void wn_session_free(wn_session *session)
{
    if (!session)
        return;
    wn_window_free(session->windows[0]);
    wn_window_free(session->windows[1]);
    pthread_mutex_destroy(&session->tx_lock);
    pthread_mutex_destroy(&session->rx_lock);
    sodium_memzero(session, sizeof *session);
    free(session);
}

uint32_t wn_session_generation(const wn_session *session) { return session ? session->generation : 0; }

static uint64_t fingerprint(const uint8_t key[WN_KEY_LEN])
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, key, WN_KEY_LEN);
    return wn_load_u64(digest) | 1u; /* never 0, which is an empty place */
}

/* True if some forwarder has used this key, or it is in the list for too long to be told apart. */
static bool used_before(const wn_datapath *dp, uint64_t print)
{
    for (uint32_t i = 0; i < WN_USED_KEYS; i++)
        if (dp->used_keys[i] == print)
            return true;
    return false;
}

int wn_forwarder_set_key(wn_datapath *dp, uint16_t forwarder, int cipher, const uint8_t key[32], int outbound)
{
    if (forwarder >= WN_FORWARDERS_MAX || cipher < WN_CIPHER_NONE || cipher > WN_CIPHER_GCM ||
        (cipher != WN_CIPHER_NONE && !key) || !wn_crypto_init())
        return WN_ERR_RANGE;
    int result = WN_OK;
    wn_session *old = NULL;
    pthread_rwlock_wrlock(&dp->lock);
    wn_forwarder *f = &dp->forwarders[forwarder];
    if (!f->in_use) {
        result = WN_ERR_RANGE;
    } else if (cipher == WN_CIPHER_NONE) {
        old = f->session;
        f->session = NULL;
    } else if (!f->session || f->session->cipher != cipher || f->session->outbound != (outbound != 0) ||
               sodium_memcmp(f->session->key, key, WN_KEY_LEN) != 0) {
        uint64_t print = fingerprint(key);
        wn_session *session = used_before(dp, print) ? NULL : wn_session_new(cipher, key, outbound);
        if (session) {
            old = f->session;
            f->session = session;
            dp->used_keys[dp->next_used_key++ % WN_USED_KEYS] = print;
        } else {
            result = used_before(dp, print) ? WN_ERR_RANGE : WN_ERR_NOMEM;
        }
    }
    if (result == WN_OK)
        wn_forwarder_overhead(f, f->session ? WN_OVERHEAD_ENCRYPTED : WN_OVERHEAD_PLAIN);
    pthread_rwlock_unlock(&dp->lock);
    wn_session_free(old);
    return result;
}

int wn_forwarder_set_sequence(wn_datapath *dp, uint16_t forwarder, int df, uint64_t next)
{
    if (forwarder >= WN_FORWARDERS_MAX || next > WN_SEQUENCE_END)
        return WN_ERR_RANGE;
    int result = WN_ERR_RANGE;
    pthread_rwlock_wrlock(&dp->lock);
    wn_session *session = dp->forwarders[forwarder].session;
    if (session && next >= session->next[df != 0]) {
        session->next[df != 0] = next;
        result = WN_OK;
    }
    pthread_rwlock_unlock(&dp->lock);
    return result;
}

int wn_forwarder_get_session(wn_datapath *dp, uint16_t forwarder, wn_session_info *out)
{
    if (forwarder >= WN_FORWARDERS_MAX)
        return WN_ERR_RANGE;
    memset(out, 0, sizeof *out);
    pthread_rwlock_rdlock(&dp->lock);
    wn_session *session = dp->forwarders[forwarder].session;
    if (session) {
        out->cipher = session->cipher;
        out->outbound = session->outbound;
        out->next_frag = __atomic_load_n(&session->next[0], __ATOMIC_RELAXED);
        out->next_df = __atomic_load_n(&session->next[1], __ATOMIC_RELAXED);
        pthread_mutex_lock(&session->rx_lock);
        out->window_frag = wn_window_current(session->windows[0]);
        out->window_df = wn_window_current(session->windows[1]);
        pthread_mutex_unlock(&session->rx_lock);
    }
    pthread_rwlock_unlock(&dp->lock);
    return WN_OK;
}

static uint64_t get_field(const uint8_t *data)
{
    return (uint64_t)wn_get32(data + WN_FIELD_AT) << 32 | wn_get32(data + WN_FIELD_AT + 4);
}

/* One datagram, sealed or opened, by a cipher without a session. */
static int single(int cipher, const uint8_t key[32], uint8_t role, uint8_t *data, size_t len, bool sealing)
{
    wn_boxes boxes = {.data = {data}, .len = {(uint32_t)len}, .good = {1}, .n = 1};
    wn_scratch *scratch = wn_scratch_new();
    if (!scratch)
        return WN_ERR_NOMEM;
    if (cipher == WN_CIPHER_GCM) {
        uint64_t field = get_field(data);
        wn_gcm_derive(&scratch->key, key, role, field >> 63 != 0, (field & ~WN_SEQUENCE_END) >> WN_WINDOW_BITS);
        (sealing ? wn_gcm_seal : wn_gcm_open)(scratch, &scratch->key, role, &boxes);
    } else {
        uint8_t salsa_key[WN_KEY_LEN];
        wn_secretbox_key(salsa_key, key, role);
        if (sealing) {
            wn_secretbox_seal(scratch, salsa_key, &boxes);
        } else {
            wn_secretbox_verify(scratch, salsa_key, &boxes);
            wn_secretbox_decrypt(salsa_key, &boxes);
        }
        sodium_memzero(salsa_key, sizeof salsa_key);
    }
    wn_scratch_free(scratch);
    return boxes.good[0] ? WN_OK : WN_ERR_RANGE;
}

int wn_datagram_seal(int cipher, const uint8_t key[32], int sender_dialled, uint64_t field, uint8_t *data,
                     size_t len)
{
    if (len < WN_BOX_AT || len > WN_PAYLOAD_MAX || (cipher != WN_CIPHER_SECRETBOX && cipher != WN_CIPHER_GCM))
        return WN_ERR_RANGE;
    wn_put32(data + WN_FIELD_AT, (uint32_t)(field >> 32));
    wn_put32(data + WN_FIELD_AT + 4, (uint32_t)field);
    return single(cipher, key, sender_dialled ? WN_DIALLER : 0, data, len, true);
}

int wn_datagram_open(int cipher, const uint8_t key[32], int sender_dialled, uint8_t *data, size_t len)
{
    if (len < WN_BOX_AT)
        return WN_ERR_TRUNCATED;
    if (len > WN_FRAME_MAX || (cipher != WN_CIPHER_SECRETBOX && cipher != WN_CIPHER_GCM))
        return WN_ERR_RANGE;
    return single(cipher, key, sender_dialled ? WN_DIALLER : 0, data, len, false);
}
