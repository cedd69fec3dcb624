//! The memory that the machine has left for this program: what Linux says is available, or less where a control group or a limit
//! of the process allows less.

use std::path::Path;

/// Memory that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Free {
    /// Bytes.
    pub bytes: usize,
    /// Where that was read.
    pub source: &'static str,
}

/// The memory that is left for this program; none where the system does not tell.
pub fn free() -> Option<Free> {
    free_below(Path::new("/"))
}

/// [`free`] by the files below a folder.
fn free_below(root: &Path) -> Option<Free> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let available = read("proc/meminfo").and_then(|text| field(&text, "MemAvailable:", 1024));
    let limit = read("proc/self/limits").and_then(|text| field(&text, "Max address space", 1));
    let used = read("proc/self/status").and_then(|text| field(&text, "VmSize:", 1024)).unwrap_or(0);
    let group = read("proc/self/cgroup").and_then(|text| of_groups(&read, &text));
    let all = [
        (available, "MemAvailable of /proc/meminfo"),
        (group, "the limit of the control group"),
        (limit.map(|limit| limit.saturating_sub(used)), "the limit of the process (ulimit -v)"),
    ];
    let known = all.into_iter().filter_map(|(bytes, source)| Some(Free { bytes: bytes?, source }));
    known.min_by_key(|free| free.bytes)
}

/// The number behind a name, times a unit of bytes; none where it is no number, as `unlimited`.
fn field(text: &str, name: &str, unit: usize) -> Option<usize> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse::<usize>().ok()?.checked_mul(unit)
}

/// What the process's control group and those above it leave, of the first or the second version.
fn of_groups(read: &impl Fn(&str) -> Option<String>, groups: &str) -> Option<usize> {
    let number = |path: String| read(&path)?.trim().parse::<usize>().ok();
    let left = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (base, [limit, usage], cached) = match controllers {
            "" => ("sys/fs/cgroup", ["memory.max", "memory.current"], "inactive_file "),
            "memory" => {
                let names = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
                ("sys/fs/cgroup/memory", names, "total_inactive_file ")
            }
            _ => return None,
        };
        // A container sees its own group at the base, whatever the path says.
        let above = Path::new(path).ancestors().map(|group| format!("{base}{}", group.display()));
        let of = |group: String| {
            let used = number(format!("{group}/{usage}"))?;
            // Cached files are given up where memory is asked for.
            let cached = read(&format!("{group}/memory.stat")).and_then(|text| field(&text, cached, 1));
            Some(number(format!("{group}/{limit}"))?.saturating_sub(used - cached.unwrap_or(0).min(used)))
        };
        above.filter_map(of).min()
    };
    groups.lines().filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_what_is_said_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let found = || free_below(dir.path()).map(|free| (free.bytes, &free.source[..10]));
        assert_eq!(found(), None);
        write("proc/meminfo", "MemTotal: 90 kB\nMemAvailable:   64 kB\n");
        write(
            "proc/self/limits",
            "Max address space         unlimited            unlimited            bytes\n",
        );
        write("proc/self/cgroup", "1:cpu:/\n4:memory:/a/b\n0::/\n");
        assert_eq!(found(), Some((65_536, "MemAvailab")));
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "50000\n");
        write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "30000\n");
        assert_eq!(found(), Some((20_000, "the limit ")));
        write("sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 9000\n");
        assert_eq!(found(), Some((29_000, "the limit ")));
        write("sys/fs/cgroup/memory.max", "max\n");
        write("sys/fs/cgroup/memory.current", "100\n");
        assert_eq!(found(), Some((29_000, "the limit ")));
        write("sys/fs/cgroup/memory.max", "12100\n");
        assert_eq!(found(), Some((12_000, "the limit ")));
        write("proc/self/limits", "Max address space   22528   22528   bytes\n");
        write("proc/self/status", "VmPeak: 99 kB\nVmSize:\t   20 kB\n");
        assert_eq!(found(), Some((2048, "the limit ")));
    }
}
