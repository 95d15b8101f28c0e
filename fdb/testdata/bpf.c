/*
 * A reader that is a BPF program on a table in an array map. Each run answers
 * all questions once. The test gives the maps their sizes, and buckets a value.
 */
#include "answer.h"

#define SEC(name) __attribute__((section(name), used))
#define QUESTIONS 64

#define MAPPED_ARRAY(size) struct { \
	int (*type)[2];           /* BPF_MAP_TYPE_ARRAY */ \
	int (*map_flags)[1024];   /* BPF_F_MMAPABLE */ \
	int (*max_entries)[1]; \
	int (*key_size)[sizeof(int)]; \
	int (*value_size)[size]; \
}

MAPPED_ARRAY(sizeof(struct fdb)) table SEC(".maps");
MAPPED_ARRAY(QUESTIONS * sizeof(struct question)) questions SEC(".maps");

const volatile fdb_u32 buckets = 8;

static void *(*map_lookup_elem)(void *map, const void *key) = (void *)1;

SEC("tc") int answer_all(void *ctx)
{
	int zero = 0;
	struct fdb *t = map_lookup_elem(&table, &zero);
	struct question *q = map_lookup_elem(&questions, &zero);

	(void)ctx;
	if (!t || !q)
		return 1;
	for (int i = 0; i < QUESTIONS; i++)
		answer(t, buckets, q + i);
	return 0;
}

char license_of[] SEC("license") = "Apache-2.0";
