/*
 * What a reader under test is asked, and its answer, in memory that it shares
 * with the test. Ports are below 64.
 */
#include "../fdb.h"

enum op { NOTHING, LOOKUP, HEARD, HOMES, FIND, REFRESH };

struct question {
	fdb_u64 op, key, port;
	fdb_u64 answer;
	fdb_u64 also; /* lookup: all ports it was ever found on; homes: the third; find: the slot's offset */
};

FDB_INLINE void answer(struct fdb *t, fdb_u32 n, struct question *q)
{
	fdb_u64 p, first, second;
	struct fdb_slot *s;

	switch (q->op) {
	case LOOKUP:
		q->answer = fdb_lookup(t, n, q->key);
		if (q->answer)
			q->also |= 1ull << (fdb_port(q->answer) & 63);
		break;
	case HEARD:
		q->answer = fdb_heard(t, n, q->key, q->port);
		break;
	case HOMES:
		p = fdb_product(&t->head, q->key);
		first = fdb_spread(p, t->head.first);
		second = fdb_spread(p, t->head.second);
		q->answer = (first >> 32 & (n - 1)) << 32 | (second >> 32 & (n - 1));
		q->also = n + ((first + second) >> 46 & (n / 8 - 1));
		break;
	case FIND:
		s = fdb_find(t, n, q->key, &q->answer);
		q->also = s ? (char *)s - (char *)t->bucket : 0;
		break;
	case REFRESH: /* what find has found */
		s = (struct fdb_slot *)((char *)t->bucket + (q->also & (n * sizeof(struct fdb_bucket) - sizeof *s)));
		fdb_refresh(s, q->answer, fdb_load(&t->head.clock));
		break;
	}
}
