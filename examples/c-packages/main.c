#include <sqlite3.h>
#include <stdio.h>

static int print_row(void *unused, int columns, char **values, char **names)
{
    (void)unused;
    (void)names;
    if (columns == 1)
        puts(values[0]);
    return 0;
}

int main(void)
{
    sqlite3 *database;
    char *message = NULL;

    if (sqlite3_open(":memory:", &database) != SQLITE_OK)
        return 1;
    if (sqlite3_exec(database, "SELECT 'Hello from C: 6 * 7 = ' || (6 * 7) || '.'", print_row, NULL, &message) != SQLITE_OK) {
        fprintf(stderr, "%s\n", message);
        return 1;
    }
    return sqlite3_close(database) != SQLITE_OK;
}
