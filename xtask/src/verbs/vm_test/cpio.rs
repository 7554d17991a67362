//! Writing a cpio archive in the "newc" format, which the kernel unpacks into its first root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

const MAGIC: &str = "070701";
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// Length of the header before the name.
const HEADER: usize = 110;
/// The entry that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive being written.
pub(super) struct Archive<W> {
    to: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    /// A folder; those it lies in come first.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER, &[])
    }

    /// A file that everybody may execute.
    pub(super) fn program(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, contents)
    }

    /// Closes the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(END, 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let size = u32::try_from(contents.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let name_size = path.len() + 1;
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, four device numbers, size of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size as u32, 0];
        self.to.write_all(MAGIC.as_bytes())?;
        for field in fields {
            write!(self.to, "{field:08x}")?;
        }
        self.to.write_all(path.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(HEADER + name_size)?;
        self.to.write_all(contents)?;
        self.pad(contents.len())
    }

    /// Names and contents end on a multiple of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_closed() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("bin").expect("memory takes everything");
        archive.program("bin/a", b"12345").expect("memory takes everything");
        let bytes = archive.finish().expect("memory takes everything");
        let text = String::from_utf8(bytes).expect("ASCII");
        // 110 bytes and "bin\0" are 114, padded to 116.
        assert_eq!(&text[..14], "07070100000001");
        assert_eq!(&text[14..22], "000041ed");
        assert_eq!(&text[110..116], "bin\0\0\0");
        // "bin/a\0" brings the second header to 116, and the contents are padded to 8.
        let second = &text[116..];
        assert_eq!(&second[54..62], "00000005");
        assert_eq!(&second[94..102], "00000006");
        assert_eq!(&second[110..124], "bin/a\x0012345\0\0\0");
        assert_eq!(&second[124..130], MAGIC);
        assert_eq!(&second[124 + HEADER..], "TRAILER!!!\0\0\0\0");
        assert_eq!(text.len() % 4, 0);
    }
}
