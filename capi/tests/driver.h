/* What cuda.c knows of the driver that it runs with. */
#ifndef DRIVER_H
#define DRIVER_H

#define DRIVER_BASE UINT64_C(0x0800000000000000)
#define DRIVER_SIZE 8192
#define DRIVER_BROKEN ((void *)0x30) /* a stream whose work fails */

extern unsigned char driver_memory[DRIVER_SIZE];
extern int driver_contexts, driver_current, driver_waits; /* retained, current, and copies that were waited for */

#endif
