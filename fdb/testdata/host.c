/*
 * A reader that is a process: host FILE BUCKETS QUESTIONS. FILE is the table and
 * the questions behind it. For each 32-bit number that it reads it answers all
 * questions that many times, and writes the number. With STEPPED it writes 0
 * before each load from the table and waits for a number.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef STEPPED
static unsigned long step(const unsigned long *p)
{
	unsigned word = 0;

	if (write(1, &word, sizeof word) != sizeof word || read(0, &word, sizeof word) != sizeof word)
		_exit(1);
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
#define __atomic_load_n(p, order) step(p)
#endif

#include "answer.h"

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	fdb_u32 n = atoi(argv[2]), questions = atoi(argv[3]), rounds;
	size_t size = fdb_size(n) + questions * sizeof(struct question);
	int fd = open(argv[1], O_RDWR);
	char *m = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd < 0 || m == MAP_FAILED)
		return 1;
	while (read(0, &rounds, sizeof rounds) == sizeof rounds) {
		struct question *q = (struct question *)(m + fdb_size(n));

		for (fdb_u32 r = 0; r < rounds; r++)
			for (fdb_u32 i = 0; i < questions; i++)
				answer((struct fdb *)m, n, q + i);
		if (write(1, &rounds, sizeof rounds) != sizeof rounds)
			return 1;
	}
	return 0;
}
