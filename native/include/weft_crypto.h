/* weft_crypto.h - keys, replay windows and the two stages that seal and open. Included by weft_native.h.
 *
 * An encrypted datagram (docs/cipher.md; spec: sleeve 5.2):
 *
 *     0             6                         14           30
 *    +-------------+-------------------------+------------+------------------------+
 *    | sender name | DF bit (63) + sequence  | tag        | ciphertext of records  |
 *    +-------------+-------------------------+------------+------------------------+
 *
 * It is a plain datagram with WN_SEAL_LEN bytes more behind the sender's name. Both ciphers use this form.
 */
#ifndef WEFT_CRYPTO_H
#define WEFT_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#include "weft_datapath.h"

#define WN_SEAL_LEN 24
#define WN_SEALED_MIN 30      /* sealed datagram without records */
#define WN_KEY_LEN 32
#define WN_SEQUENCE_BITS 63
#define WN_WINDOW_BITS 20     /* a window of 2^20 datagrams; also how many share one GCM subkey */

enum { WN_CIPHER_NONE = 0, WN_CIPHER_SECRETBOX = 1, WN_CIPHER_GCM = 2 };

/* ---- which cipher, by what code ------------------------------------------------------------------- */
/* 1 if this CPU runs the cipher fast enough to offer it (AES-256-GCM: only with AES instructions). */
int wn_cipher_offered(int cipher);
/* What does the work here, e.g. "avx512" or "openssl"; "" for an unknown cipher. */
const char *wn_cipher_backend(int cipher);
/* 1: use the portable code of libsodium and OpenSSL alone, for comparison; 0: what is fastest. */
void wn_cipher_set_portable(int portable);

/* ---- replay window (spec: sleeve 5.4); memory grows with what is used ------------------------------- */
typedef struct wn_window wn_window;
wn_window *wn_window_new(void);
void wn_window_free(wn_window *window);
/* 1: fresh, now used. 0: used before, or too old. Call it only for what has been authenticated. */
int wn_window_accept(wn_window *window, uint64_t sequence);
uint64_t wn_window_current(const wn_window *window);
size_t wn_window_bytes(const wn_window *window);

/* ---- one datagram, for slow paths and tests ------------------------------------------------------------ */
/* Seal in place: the sender's name is at 0, records at WN_SEALED_MIN, len covers all. sender_dialled: role
 * of the sender in the TCP connection. field: DF bit and sequence number; it is the caller's duty that it
 * never repeats under a key. WN_OK, WN_ERR_RANGE, WN_ERR_NOMEM. */
int wn_datagram_seal(int cipher, const uint8_t key[32], int sender_dialled, uint64_t field, uint8_t *data,
                     size_t len);
/* Open in place. WN_OK; WN_ERR_TRUNCATED: too short; WN_ERR_RANGE: does not authenticate, data unchanged. */
int wn_datagram_open(int cipher, const uint8_t key[32], int sender_dialled, uint8_t *data, size_t len);

/* ---- keys of forwarders ---------------------------------------------------------------------------------- */
typedef struct wn_session_info {
    uint8_t cipher;
    uint8_t outbound;
    uint64_t next_df;    /* sequence numbers of the next datagrams we send */
    uint64_t next_frag;
    uint64_t window_df;  /* current windows of what we receive */
    uint64_t window_frag;
} wn_session_info;
/* Encrypt with this neighbour from now on. outbound: we dialled. The forwarder must be set, its overhead
 * follows the cipher. The key in force once more changes nothing. A key that any forwarder used before is
 * refused with WN_ERR_RANGE: its nonces would repeat. WN_CIPHER_NONE: plain from now on, key ignored. */
int wn_forwarder_set_key(wn_datapath *dp, uint16_t forwarder, int cipher, const uint8_t key[32], int outbound);
/* Continue at a higher sequence number on one channel; WN_ERR_RANGE when it is lower than the next. */
int wn_forwarder_set_sequence(wn_datapath *dp, uint16_t forwarder, int df, uint64_t next);
int wn_forwarder_get_session(wn_datapath *dp, uint16_t forwarder, wn_session_info *out);

/* ---- stages -------------------------------------------------------------------------------------------------- */
/* A datagram of our own making, one more message of the batch: records as on the wire, without sender name.
 * For special frames. WN_OK, WN_ERR_RANGE (no such forwarder, too long), WN_ERR_FULL. */
int wn_batch_put_message(wn_datapath *dp, wn_batch *batch, uint16_t forwarder, int df, const uint8_t *records,
                         size_t len);
/* Seal every message for an encrypted neighbour, in memory of the batch. Messages that cannot be sealed
 * leave the batch and are counted; none goes on in clear. Returns the messages left. */
int wn_seal(wn_datapath *dp, wn_batch *batch);
/* Open every received datagram of an encrypted neighbour, in place. Those that don't open, or repeat, are
 * counted, and wn_decap passes over them. Returns how many opened. */
int wn_open(wn_datapath *dp, wn_batch *batch);

#endif
