/* sha256.h - the hash SHA-256 (FIPS 180-4). */
#ifndef JANG_SERVER_SHA256_H
#define JANG_SERVER_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct sha256 {
    uint32_t state[8];
    uint8_t block[64];
    size_t n_block;
    uint64_t n_bytes;
} sha256;

void sha256_init(sha256 *h);
void sha256_add(sha256 *h, const void *data, size_t n_bytes);
/* Ends it and writes 64 digits and a 0 byte. */
void sha256_hex(sha256 *h, char out[65]);

#endif
