/* Reads images from standard input until it ends, writes the scores of each to standard output, and the processor
   time of all, in seconds, to standard error. */
#include <stdio.h>
#include <time.h>

#include "NAME.h"

int main(void)
{
    clock_t spent = 0;
    while (fread(NAME_input(), 1, UPPER_INPUT_BYTES, stdin) == UPPER_INPUT_BYTES) {
        const clock_t start = clock();
        const int8_t *scores = NAME_run();
        spent += clock() - start;
        fwrite(scores, 1, UPPER_CLASSES, stdout);
    }
    fprintf(stderr, "%.6f\n", (double)spent / CLOCKS_PER_SEC);
    return 0;
}
