/* crypto.h - what the sealing and opening stages share with the two ciphers. */
#ifndef WEFT_CRYPTO_INTERNAL_H
#define WEFT_CRYPTO_INTERNAL_H

#include <openssl/evp.h>

#include "internal.h"

#define WN_FIELD_AT 6u
#define WN_TAG_AT 14u
#define WN_TAG_LEN 16u
#define WN_BOX_AT 30u            /* ciphertext of the records */
#define WN_BATCH_BOXES 16u       /* datagrams that one call of a cipher works on */
#define WN_DIALLER 0x80u         /* role byte at the head of both nonces */
#define WN_SEQUENCE_END (1ull << WN_SEQUENCE_BITS)

/* Datagrams that share a key. */
typedef struct wn_boxes {
    uint8_t *data[WN_BATCH_BOXES];
    uint32_t len[WN_BATCH_BOXES]; /* whole datagram */
    uint8_t good[WN_BATCH_BOXES]; /* after opening */
    uint32_t n;
} wn_boxes;

/* What a batch needs to run ciphers; made on first use, belongs to the batch's thread. */
typedef struct wn_gcm_key {
    _Alignas(64) uint8_t expanded[1024]; /* IPsec-MB's gcm_key_data */
    uint8_t raw[WN_KEY_LEN];
    uint64_t epoch;
    bool valid;
} wn_gcm_key;

struct wn_scratch {
    EVP_MAC_CTX *poly;
    EVP_CIPHER_CTX *gcm;         /* OpenSSL's, keyed with gcm_raw */
    uint8_t gcm_raw[WN_KEY_LEN];
    bool gcm_keyed;
    wn_gcm_key key;
    uint8_t poly_keys[WN_BATCH_BOXES][32];
};

/* Secretbox and GCM state of one direction. */
typedef struct wn_direction {
    uint8_t role;                /* WN_DIALLER if the sender dialled */
    uint8_t salsa_key[WN_KEY_LEN];
    wn_gcm_key gcm[2][2];        /* channel, epoch parity */
} wn_direction;

struct wn_session {
    uint8_t cipher;
    uint8_t outbound;
    uint32_t generation;         /* never 0 */
    uint8_t key[WN_KEY_LEN];
    pthread_mutex_t tx_lock;     /* tx.gcm */
    pthread_mutex_t rx_lock;     /* rx, windows */
    uint64_t next[2];            /* atomic: sequence number of the next datagram, by channel */
    wn_direction tx, rx;
    wn_window *windows[2];
};

wn_session *wn_session_new(int cipher, const uint8_t key[WN_KEY_LEN], int outbound);
wn_scratch *wn_scratch_new(void);
bool wn_crypto_init(void);
bool wn_crypto_portable(void);

/* secretbox.c: XSalsa20-Poly1305. The first 16 nonce bytes are the same for all datagrams of a direction,
 * so HSalsa20 is done once: what remains is Salsa20 with the field as nonce. */
void wn_secretbox_key(uint8_t out[WN_KEY_LEN], const uint8_t key[WN_KEY_LEN], uint8_t role);
void wn_secretbox_seal(wn_scratch *scratch, const uint8_t salsa_key[WN_KEY_LEN], wn_boxes *boxes);
/* Sets good[] and leaves the text sealed; then decrypt those that are to be read. */
void wn_secretbox_verify(wn_scratch *scratch, const uint8_t salsa_key[WN_KEY_LEN], wn_boxes *boxes);
void wn_secretbox_decrypt(const uint8_t salsa_key[WN_KEY_LEN], wn_boxes *boxes);

/* gcm.c: AES-256-GCM, a subkey per direction, channel and 2^20 datagrams. */
void wn_gcm_derive(wn_gcm_key *out, const uint8_t key[WN_KEY_LEN], uint8_t role, int df, uint64_t epoch);
void wn_gcm_seal(wn_scratch *scratch, const wn_gcm_key *key, uint8_t role, wn_boxes *boxes);
/* Sets good[]; those that don't authenticate are left as they were. */
void wn_gcm_open(wn_scratch *scratch, const wn_gcm_key *key, uint8_t role, wn_boxes *boxes);

/* salsa_x86.c: 16 blocks at once. A lane XORs one 64-byte block of key stream into dst where mask has a
 * bit per byte set; head, if not NULL, gets its first 32 bytes. */
typedef struct wn_salsa_lane {
    const uint8_t *nonce; /* 8 bytes */
    uint32_t counter;
    uint8_t *dst;
    uint64_t mask;
    uint8_t *head;
} wn_salsa_lane;
#if defined(__x86_64__)
#define WN_SALSA_X86 1
void wn_salsa20_avx512(const uint8_t key[WN_KEY_LEN], const wn_salsa_lane lanes[16]);
#endif

#endif
