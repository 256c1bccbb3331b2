/* tmpl_walk.h - visiting the children of a node, and questions about subtrees. */
#ifndef JANG_TMPL_WALK_H
#define JANG_TMPL_WALK_H

#include "template/tmpl_ast.h"

/* Calls visit for each child, in the order of jinja2's node fields, until one returns false. */
typedef bool (*nd_visit)(tm_core *t, nd *child, void *user);
bool nd_children(tm_core *t, nd *node, nd_visit visit, void *user);
bool nd_list_visit(tm_core *t, const nd_list *list, nd_visit visit, void *user);

/* Names that are read in a body before it assigns them there: bit i of the result stands for
 * names[i]. Does not look into blocks. At most 4 names. */
unsigned nd_undeclared(tm_core *t, const nd_list *body, const char *const *names, unsigned n);

/* The first node in the subtree that assigns this name, or NULL. */
const nd *nd_find_store(tm_core *t, nd *node, const char *name);
/* Whether there is a scoped block in the subtree. */
bool nd_has_scoped_block(tm_core *t, nd *node);

#endif
