//! Hands out a folder by HTTP on the loopback, for machines that boot from it: `GET` and `HEAD` of whole files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Serves `folder` until the process ends; gives the port.
pub fn serve(folder: &Path) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || {
                // Who hangs up gets no more.
                let _ = answer(stream, &folder);
            });
        }
    });
    Ok(port)
}

/// Answers one connection, request by request.
fn answer(mut stream: TcpStream, folder: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line);
        }
        let mut words = head.first().map(String::as_str).unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some(mut file) = inside(folder, path).and_then(|path| File::open(path).ok()) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        let bytes = file.metadata()?.len();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?;
        if method == "GET" {
            io::copy(&mut file, &mut stream)?;
        }
    }
}

/// The file that a path of a request names; none outside the folder.
fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let name = path.trim_start_matches('/');
    let is_plain = name
        .split('/')
        .all(|part| !part.is_empty() && !part.starts_with('.'));
    let file = folder.join(name);
    (is_plain && file.is_file()).then_some(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn files_are_handed_out_and_nothing_beside_them() -> Result<()> {
        let above = tempfile::tempdir()?;
        let folder = above.path().join("files");
        std::fs::create_dir_all(folder.join("grub"))?;
        std::fs::write(folder.join("grub/grub.cfg"), "boot\n")?;
        std::fs::write(above.path().join("secret"), "no\n")?;
        let port = serve(&folder)?;
        let get = |path: &str| -> Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            Ok(said)
        };
        assert!(get("/grub/grub.cfg")?.ends_with("Content-Length: 5\r\n\r\nboot\n"));
        for path in ["/../secret", "/grub", "/grub/../../secret", "/"] {
            assert!(get(path)?.starts_with("HTTP/1.1 404 "), "{path}");
        }
        Ok(())
    }
}
