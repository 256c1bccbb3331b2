/* tmpl_lex.h - the text of a template as tokens. */
#ifndef JANG_TMPL_LEX_H
#define JANG_TMPL_LEX_H

#include "template/tmpl_value.h"

typedef enum tk_type {
    TK_EOF,
    TK_DATA, /* value: text, whitespace control done */
    TK_VARIABLE_BEGIN,
    TK_VARIABLE_END,
    TK_BLOCK_BEGIN,
    TK_BLOCK_END,
    TK_NAME,    /* value: str */
    TK_STRING,  /* value: str, escapes resolved */
    TK_INTEGER, /* value */
    TK_FLOAT,   /* value */
    TK_ADD,
    TK_SUB,
    TK_DIV,
    TK_FLOORDIV,
    TK_MUL,
    TK_MOD,
    TK_POW,
    TK_TILDE,
    TK_LBRACKET,
    TK_RBRACKET,
    TK_LPAREN,
    TK_RPAREN,
    TK_LBRACE,
    TK_RBRACE,
    TK_EQ,
    TK_NE,
    TK_GT,
    TK_GTEQ,
    TK_LT,
    TK_LTEQ,
    TK_ASSIGN,
    TK_DOT,
    TK_COLON,
    TK_PIPE,
    TK_COMMA,
    TK_SEMICOLON,
    TK_N_TYPES
} tk_type;

typedef struct tk {
    tk_type type;
    uint32_t at; /* byte in the source */
    tval value;
} tk;

typedef struct tk_list {
    tk *items; /* the last is TK_EOF */
    size_t n, capacity;
} tk_list;

/* Cuts up t->source, in which line ends are already '\n'. */
void tm_lex(tm_core *t, tk_list *out);

/* What a token is called in messages: "end of print statement", "','", or a name itself. */
const char *tk_describe(tm_core *t, const tk *token);
const char *tk_type_name(tk_type type);

#endif
