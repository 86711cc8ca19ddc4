//! How the allocator treats memory that was freed.
#![expect(unsafe_code, reason = "mallopt is called directly")]

/// Makes glibc give large buffers back as soon as they are freed, and keep few arenas. By default each thread that
/// allocates gets an arena of its own, which keeps what it once held, and after the first large buffer was freed those
/// of the same size come from the arenas too: a process whose buffers are made on one thread and freed on another grows
/// to several times what it uses. To be called before other threads are started. Does nothing with another C library.
pub fn give_back_early() {
    #[cfg(target_env = "gnu")]
    {
        /// Arenas of the process. With one, threads that allocate much would wait for its lock.
        const ARENAS: i32 = 2;
        /// Buffers from this size on are mapped one by one, so that `free` unmaps them (mallopt(3)).
        const LARGE_BYTES: i32 = 256 << 10;
        // Setting a threshold also turns off its adjustment: by default glibc raises it to the size of the largest
        // mapped buffer that was freed, up to 32 MiB (mallopt(3), `M_MMAP_THRESHOLD`).
        for (option, value) in
            [(libc::M_ARENA_MAX, ARENAS), (libc::M_MMAP_THRESHOLD, LARGE_BYTES), (libc::M_TRIM_THRESHOLD, LARGE_BYTES)]
        {
            // SAFETY: mallopt takes two integers and touches nothing but the allocator's settings. A value it refuses
            // leaves the default in place.
            let _ = unsafe { libc::mallopt(option, value) };
        }
    }
}
