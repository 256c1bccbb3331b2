/* schema_value.c - the compiler of schemas: from lists of schemas to rules, each list once. */
#include "grammar/schema.h"

#include "grammar/gr_dfa.h"
#include "grammar/grammar_impl.h"

#include <string.h>

#define MAX_DEPTH 150
#define CHUNK 65536u

/* ---- The arena ---- */

typedef struct sc_chunk {
    struct sc_chunk *before;
    size_t used, size;
} sc_chunk;

void *sc_alloc(sc *s, size_t n) {
    n = (n + 15) & ~(size_t)15;
    if (!s->chunks || s->chunks->size - s->chunks->used < n) {
        size_t size = n > CHUNK ? n : CHUNK;
        sc_chunk *chunk = ctx_zero(s->a->ctx, 1, sizeof *chunk + size + 16);
        if (!chunk) {
            gr_fail(s->a, ctx_fail_memory(s->a->ctx, size));
            return NULL;
        }
        *chunk = (sc_chunk){s->chunks, 0, size};
        s->chunks = chunk;
    }
    void *at = (char *)s->chunks + ((sizeof(sc_chunk) + 15) & ~(size_t)15) + s->chunks->used;
    s->chunks->used += n;
    return at;
}

jang_status sc_push(sc *s, sc_list *list, const void *item) {
    if (list->n >= list->capacity) {
        uint32_t more = list->n < 4 ? 8 : list->n * 2;
        const void **items = sc_alloc(s, more * sizeof *items);
        if (!items) {
            return JANG_ERR_MEMORY;
        }
        if (list->n) {
            memcpy(items, list->items, list->n * sizeof *items);
        }
        list->items = items;
        list->capacity = more;
    }
    list->items[list->n++] = item;
    return JANG_OK;
}

/* ---- What has been compiled ---- */

typedef struct sc_memo {
    sc_list schemas;
    uint32_t hash;
    bool done;
    gr_ref ref; /* when done; before that the rule that stands for it, made when asked for */
} sc_memo;

static uint32_t hash_list(const sc_list *list) {
    uint64_t h = list->n;
    for (uint32_t i = 0; i < list->n; i++) {
        h = (h ^ (uint64_t)(uintptr_t)list->items[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 31;
    }
    return (uint32_t)(h >> 20);
}

static jang_status grow_slots(sc *s) {
    if (s->n_memos * 2 < s->n_slots) {
        return JANG_OK;
    }
    size_t n = s->n_slots ? s->n_slots * 2 : 64;
    uint32_t *slots = ctx_zero(s->a->ctx, n, sizeof *slots);
    if (!slots) {
        return ctx_fail_memory(s->a->ctx, n * sizeof *slots);
    }
    for (size_t i = 0; i < s->n_memos; i++) {
        size_t at = s->memos[i].hash & (n - 1);
        while (slots[at]) {
            at = (at + 1) & (n - 1);
        }
        slots[at] = (uint32_t)i + 1;
    }
    ctx_free(s->a->ctx, s->slots);
    s->slots = slots;
    s->n_slots = n;
    return JANG_OK;
}

/* Finds or makes the memo of a list. */
static jang_status find_memo(sc *s, const sc_list *list, size_t *index, bool *is_new) {
    jang_status status = grow_slots(s);
    if (status != JANG_OK) {
        return status;
    }
    uint32_t hash = hash_list(list);
    size_t slot = hash & (s->n_slots - 1);
    for (; s->slots[slot]; slot = (slot + 1) & (s->n_slots - 1)) {
        const sc_memo *m = &s->memos[s->slots[slot] - 1];
        if (m->hash == hash && m->schemas.n == list->n &&
            memcmp(m->schemas.items, list->items, list->n * sizeof *list->items) == 0) {
            *index = s->slots[slot] - 1;
            *is_new = false;
            return JANG_OK;
        }
    }
    status = gr_grow(s->a->ctx, &s->memos, &s->memos_capacity, s->n_memos, sizeof *s->memos);
    sc_memo made = {.hash = hash};
    for (uint32_t i = 0; i < list->n && status == JANG_OK; i++) {
        status = sc_push(s, &made.schemas, list->items[i]);
    }
    if (status == JANG_OK) {
        s->slots[slot] = (uint32_t)s->n_memos + 1;
        *index = s->n_memos;
        *is_new = true;
        s->memos[s->n_memos++] = made;
    }
    return status;
}

/* The value is done: a rule that was asked for meanwhile becomes a call to it. */
static void finish_memo(sc *s, sc_memo *m, gr_ref ref) {
    if (m->ref.rule) {
        gr_rule_set(s->a, m->ref.rule, gr_call(s->a, ref, gr_final(s->a)));
        ref = ref.rule ? m->ref : ref;
    }
    m->ref = ref;
    m->done = true;
}

static jang_status compile_list(sc *s, gr_ref *out, const sc_list *schemas) {
    sc_facts f;
    sc_facts_init(&f);
    int refs = s->refs;
    s->refs = 0;
    jang_status status = JANG_OK;
    for (uint32_t i = 0; i < schemas->n && status == JANG_OK; i++) {
        status = sc_gather(s, &f, schemas->items[i]);
    }
    if (status == JANG_OK) {
        status = sc_value_of(s, out, &f);
    }
    s->refs = refs;
    return status;
}

jang_status sc_value(sc *s, gr_ref *out, const sc_list *schemas) {
    size_t index;
    bool is_new;
    jang_status status = find_memo(s, schemas, &index, &is_new);
    if (status != JANG_OK) {
        return status;
    }
    if (!is_new) {
        sc_memo *m = &s->memos[index];
        if (!m->done && !m->ref.rule) {
            m->ref = (gr_ref){gr_rule_new(s->a), 0, GR_INF};
        }
        *out = m->ref;
        return s->a->status;
    }
    if (++s->depth > MAX_DEPTH) {
        return sc_fail(s, JANG_ERR_UNSUPPORTED, "schemas nested over %d deep", MAX_DEPTH);
    }
    gr_ref ref = {0, 0, 0};
    status = compile_list(s, &ref, schemas);
    s->depth--;
    if (status == JANG_OK) {
        finish_memo(s, &s->memos[index], ref);
        *out = s->memos[index].ref;
        status = s->a->status;
    }
    return status;
}

/* ---- Facts to rules ---- */

/* One more way to write the value: *all stays a plain reference as long as it is the only one. */
static void add_way(sc *s, gr_ref *all, uint32_t *entry, gr_ref way) {
    if (!way.rule) {
        return;
    }
    if (!all->rule) {
        *all = way;
        return;
    }
    if (!*entry) {
        *entry = gr_call(s->a, *all, gr_final(s->a));
    }
    *entry = gr_split(s->a, *entry, gr_call(s->a, way, gr_final(s->a)));
}

static void join_ways(sc *s, gr_ref *out, gr_ref all, uint32_t entry) {
    if (entry) {
        all = (gr_ref){gr_rule_new(s->a), 0, GR_INF};
        gr_rule_set(s->a, all.rule, entry);
    }
    *out = all;
}

static jang_status try_branch(sc *s, gr_ref *out, const sc_facts *f, bool alone,
                              const json_t *branch) {
    if (alone) { /* nothing beside it: as any other value, once for all places that name it */
        sc_list one = {0};
        jang_status status = sc_push(s, &one, branch);
        return status == JANG_OK ? sc_value(s, out, &one) : status;
    }
    sc_facts both = sc_facts_copy(f);
    if (++s->depth > MAX_DEPTH) {
        return sc_fail(s, JANG_ERR_UNSUPPORTED, "alternatives nested over %d deep", MAX_DEPTH);
    }
    jang_status status = sc_gather(s, &both, branch);
    if (status == JANG_OK) {
        status = sc_value_of(s, out, &both);
    }
    s->depth--;
    return status;
}

static bool says_nothing(const sc_facts *f) {
    return f->types == SC_ANY && !f->has_values && !f->branches.n && !f->least.at && !f->most.at &&
           !f->multiples.n && !f->min_length && f->max_length == GR_INF && !f->patterns.n &&
           !f->min_items && f->max_items == GR_INF && !f->items.n && !f->min_members &&
           f->max_members == GR_INF && !f->members.n && !f->required.n;
}

static jang_status branches(sc *s, gr_ref *out, const sc_facts *f) {
    sc_facts rest = sc_facts_copy(f);
    const json_t *list = rest.branches.items[--rest.branches.n];
    rest.branches.capacity = rest.branches.n;
    bool alone = says_nothing(&rest);
    gr_ref all = {0, 0, 0};
    uint32_t entry = 0;
    size_t i;
    json_t *branch;
    json_array_foreach((json_t *)list, i, branch) {
        gr_ref way = {0, 0, 0};
        size_t size = sc_enter(s, "anyOf");
        sc_enter_index(s, i);
        jang_status status = try_branch(s, &way, &rest, alone, branch);
        sc_leave(s, size);
        if (status != JANG_OK) {
            return status;
        }
        add_way(s, &all, &entry, way);
    }
    join_ways(s, out, all, entry);
    return s->a->status;
}

static jang_status values(sc *s, gr_ref *out, const sc_facts *f) {
    uint32_t entry = 0, end = gr_final(s->a);
    for (uint32_t i = 0; i < f->values.n; i++) {
        bool fits;
        jang_status status = sc_fits(s, &fits, f, f->values.items[i]);
        if (status != JANG_OK) {
            return status;
        }
        if (fits) {
            entry = gr_split(s->a, sc_emit_value(s, f->values.items[i], end), entry);
        }
    }
    *out = (gr_ref){0, 0, 0};
    if (entry) {
        *out = (gr_ref){gr_rule_new(s->a), 0, GR_INF};
        gr_rule_set(s->a, out->rule, entry);
    } else {
        sc_note(s, "none of its values satisfies what else is asked");
    }
    return s->a->status;
}

jang_status sc_value_of(sc *s, gr_ref *out, const sc_facts *f) {
    if (says_nothing(f)) {
        *out = (gr_ref){s->json->value, 0, GR_INF};
        return JANG_OK;
    }
    if (f->branches.n) {
        return branches(s, out, f);
    }
    if (f->has_values) {
        return values(s, out, f);
    }
    static const struct {
        unsigned types;
        jang_status (*compile)(sc *, gr_ref *, const sc_facts *);
    } rows[] = {{SC_STRING, sc_string},
                {SC_INTEGER | SC_FRACTION, sc_number},
                {SC_OBJECT, sc_object},
                {SC_ARRAY, sc_array}};
    gr_ref all = {0, 0, 0};
    uint32_t entry = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gr_ref way = {0, 0, 0};
        jang_status status = f->types & rows[i].types ? rows[i].compile(s, &way, f) : JANG_OK;
        if (status != JANG_OK) {
            return status;
        }
        add_way(s, &all, &entry, way);
    }
    gr_ref boolean = {f->types & SC_BOOLEAN ? s->json->boolean : 0, 0, GR_INF};
    gr_ref null = {f->types & SC_NULL ? s->json->null : 0, 0, GR_INF};
    add_way(s, &all, &entry, boolean);
    add_way(s, &all, &entry, null);
    join_ways(s, out, all, entry);
    return s->a->status;
}

/* ---- Life ---- */

static jang_status compile(sc *s, gr_ref *out) {
    sc_list root = {0};
    gr_ref ref = {0, 0, 0};
    jang_status status = gr_pool_init(&s->pool, s->a->ctx);
    if (status == JANG_OK) {
        status = sc_push(s, &root, s->root);
    }
    if (status == JANG_OK) {
        status = sc_value(s, &ref, &root);
    }
    if (status == JANG_OK && !ref.rule) {
        status = ctx_fail(s->a->ctx, JANG_ERR_FORMAT, "%s",
                          s->why[0] ? s->why : "schema: no value can satisfy it");
    }
    if (status == JANG_OK) {
        *out = ref;
    }
    return status;
}

jang_status sc_compile(gr_ref *out, gr_auto *a, const gr_json *json, const json_t *schema,
                       const char *name, bool loose) {
    sc s = {.a = a, .json = json, .root = schema, .loose = loose};
    buf_init(&s.path, a->ctx, (size_t)1 << 20);
    buf_puts(&s.path, name);
    jang_status status = compile(&s, out);
    for (sc_chunk *chunk = s.chunks, *before; chunk; chunk = before) {
        before = chunk->before;
        ctx_free(a->ctx, chunk);
    }
    ctx_free(a->ctx, s.memos);
    ctx_free(a->ctx, s.slots);
    gr_pool_free(&s.pool);
    buf_free(&s.path);
    return status;
}

jang_status gr_compile_schema(gr_auto *a, const char *text, size_t n, bool loose) {
    json_t *schema;
    jang_status status = json_parse(&schema, a->ctx, "schema", text, n);
    if (status != JANG_OK) {
        return status;
    }
    status = sc_compile(&a->root, a, &a->json, schema, "schema", loose);
    json_decref(schema);
    return status == JANG_OK ? gr_check_rules(a, NULL, NULL, "schema") : status;
}
