/* json_in.h - reads the members of a request, with errors that say which, what came, what is
 * allowed.
 *
 * The first error sticks: later reads do nothing, so that a dialect reads all its fields and looks
 * once. null counts as absent. Paths are like messages[2].content. */
#ifndef JANG_SERVER_JSON_IN_H
#define JANG_SERVER_JSON_IN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct api_error {
    int status; /* HTTP's; 0: none */
    const char *code;
    char param[96], message[512];
} api_error;

/* Sets an error unless there is one. Returns false. */
__attribute__((format(printf, 5, 6))) bool api_fail(api_error *e, int status, const char *code,
                                                    const char *param, const char *format, ...);

typedef struct json_in {
    api_error *error;
    const char *path; /* of the object that is read: "" or "messages[2]." */
} json_in;

/* The whole body: an object, at most 256 deep. NULL on failure; else freed with json_decref. */
json_t *in_body(api_error *e, const char *text, size_t n_bytes);
/* A member that is neither absent nor null. */
json_t *in_get(json_t *object, const char *key);
/* "PATH.KEY: expected WHAT, got VALUE" */
bool in_wrong(const json_in *in, const char *key, const char *what, const json_t *value);
/* These return whether the member was there and fits; the target is unchanged otherwise. */
bool in_int(const json_in *in, json_t *object, const char *key, int64_t min, int64_t max,
            int64_t *out);
bool in_real(const json_in *in, json_t *object, const char *key, double min, double max,
             float *out);
bool in_bool(const json_in *in, json_t *object, const char *key, bool *out);
bool in_text(const json_in *in, json_t *object, const char *key, const char **out);
bool in_choice(const json_in *in, json_t *object, const char *key, const char *const *choices,
               int *out);
/* Arrays and objects; borrowed. NULL if absent or wrong. */
json_t *in_array(const json_in *in, json_t *object, const char *key);
json_t *in_object(const json_in *in, json_t *object, const char *key);

#endif
