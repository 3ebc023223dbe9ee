//! Tests of the path map, as tables.

use std::borrow::Cow;

use super::*;
use crate::model::xorshift::Xorshift;

fn shop() -> PathMap {
    PathMap::new("/shop", "/shop-v42")
}

fn from_root() -> PathMap {
    PathMap::new("/", "/shop-v42")
}

fn to_root() -> PathMap {
    PathMap::new("/shop", "/")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn a_request_goes_under_the_backends_prefix() {
    let check = |map: PathMap, target: &str, expected: &str| {
        let mapped = map.to_backend(target.as_bytes()).map(|mapped| text(&mapped));
        assert_eq!(mapped, Ok(expected.to_owned()), "{target}");
    };
    check(shop(), "/shop", "/shop-v42");
    check(shop(), "/shop/", "/shop-v42/");
    check(shop(), "/shop/cart?x=/shop/../y#f", "/shop-v42/cart?x=/shop/../y#f");
    check(shop(), "/shop?x", "/shop-v42?x");
    check(shop(), "/shop;jsessionid=A.t1", "/shop-v42;jsessionid=A.t1");
    check(shop(), "/shop;jsessionid=A/cart;v=1", "/shop-v42;jsessionid=A/cart;v=1");
    check(shop(), "/shop//x/./y", "/shop-v42//x/./y");
    check(shop(), "/shop/%2Fshop/%20%zz", "/shop-v42/%2Fshop/%20%zz");
    check(shop(), "/shop/shop/shop", "/shop-v42/shop/shop");
    check(shop(), "*", "*");
    check(from_root(), "/", "/shop-v42/");
    check(from_root(), "/?x", "/shop-v42/?x");
    check(from_root(), "/cart", "/shop-v42/cart");
    check(from_root(), "/;jsessionid=A", "/shop-v42/;jsessionid=A");
    check(from_root(), "//host/path", "/shop-v42//host/path");
    check(from_root(), "/shop-v42/x", "/shop-v42/shop-v42/x");
    check(to_root(), "/shop", "/");
    check(to_root(), "/shop/", "/");
    check(to_root(), "/shop/cart", "/cart");
    check(to_root(), "/shop?x", "/?x");
    check(to_root(), "/shop;jsessionid=A", "/;jsessionid=A");
    check(PathMap::new("/a/b/", "/c/"), "/a/b/x", "/c/x");
    check(PathMap::new("/", "/"), "/x", "/x");
    check(PathMap::new("/shop", "/shop"), "/shop/x", "/shop/x");
}

#[test]
fn a_request_that_could_climb_out_is_refused() {
    let check = |map: PathMap, target: &str, fault: PathFault| {
        assert_eq!(map.to_backend(target.as_bytes()), Err(fault), "{target}");
    };
    for map in [shop(), to_root(), PathMap::new("/shop", "/shop")] {
        check(map.clone(), "/shop/../manager", PathFault::DotSegments);
        check(map.clone(), "/shop/%2e%2E/manager", PathFault::DotSegments);
        check(map.clone(), "/shop/..;x/manager", PathFault::DotSegments);
        check(map.clone(), "/shop/a/..", PathFault::DotSegments);
        check(map.clone(), "/shop/..%2fmanager", PathFault::DotSegments);
        check(map.clone(), "/shop/..\\manager", PathFault::DotSegments);
        check(map.clone(), "/shop/..?x", PathFault::DotSegments);
        check(map.clone(), "/shop/..#x", PathFault::DotSegments);
        check(map.clone(), "/shop/#/../manager", PathFault::DotSegments);
        check(map.clone(), "/shopx", PathFault::OutsidePrefix);
        check(map.clone(), "/SHOP", PathFault::OutsidePrefix);
        check(map.clone(), "/sho", PathFault::OutsidePrefix);
        check(map.clone(), "/%73hop", PathFault::OutsidePrefix);
        check(map.clone(), "//shop/x", PathFault::OutsidePrefix);
        check(map.clone(), "/", PathFault::OutsidePrefix);
        check(map, "", PathFault::OutsidePrefix);
    }
    check(from_root(), "/../manager", PathFault::DotSegments);
    check(from_root(), "shop", PathFault::OutsidePrefix);
    check(from_root(), "", PathFault::OutsidePrefix);
}

#[test]
fn a_location_comes_back_under_the_public_prefix() {
    let side = PublicSide { scheme: b"https", host: b"shop.example.com", backend: b"10.0.0.5:8080" };
    let check = |map: &PathMap, value: &str, expected: &str| {
        let mapped = map.location_to_public(value.as_bytes(), &side);
        assert_eq!(text(&mapped), expected, "{value}");
        assert_eq!(matches!(mapped, Cow::Borrowed(_)), value == expected, "{value}");
    };
    let unchanged = |map: &PathMap, value: &str| check(map, value, value);
    let (shop, from_root, to_root) = (shop(), from_root(), to_root());
    check(&shop, "/shop-v42", "/shop");
    check(&shop, "/shop-v42/", "/shop/");
    check(&shop, " /shop-v42/ ", "/shop/");
    check(&shop, "/shop-v42/login?next=/shop-v42/x#/shop-v42", "/shop/login?next=/shop-v42/x#/shop-v42");
    check(&shop, "/shop-v42;jsessionid=A.t1?x", "/shop;jsessionid=A.t1?x");
    check(&shop, "/shop-v42#top", "/shop#top");
    check(&shop, "/shop-v42/a/../b", "/shop/a/../b");
    check(&shop, "/shop-v42//x", "/shop//x");
    unchanged(&shop, "/shop-v42/../manager");
    unchanged(&shop, "/shop-v42x");
    unchanged(&shop, "/shop/x");
    unchanged(&shop, "/");
    unchanged(&shop, "");
    unchanged(&shop, "cart?x");
    unchanged(&shop, "../shop-v42/x");
    unchanged(&shop, "?x=/shop-v42");
    unchanged(&shop, "#x");
    check(&shop, "https://shop.example.com/shop-v42/x", "https://shop.example.com/shop/x");
    check(&shop, "HTTPS://Shop.Example.com:443/shop-v42", "HTTPS://Shop.Example.com:443/shop");
    check(&shop, "http://shop.example.com/shop-v42/x", "http://shop.example.com/shop/x");
    check(&shop, "wss://shop.example.com/shop-v42/x", "wss://shop.example.com/shop/x");
    check(&shop, "//shop.example.com/shop-v42/x", "//shop.example.com/shop/x");
    unchanged(&shop, "https://shop.example.com:8443/shop-v42/x");
    unchanged(&shop, "https://shop.example.com/other");
    unchanged(&shop, "https://shop.example.com");
    check(&shop, "http://10.0.0.5:8080/shop-v42/x?y", "https://shop.example.com/shop/x?y");
    check(&shop, "http://10.0.0.5:8080/other", "https://shop.example.com/other");
    check(&shop, "http://10.0.0.5:8080", "https://shop.example.com");
    check(&shop, "//10.0.0.5:8080/shop-v42/x", "//shop.example.com/shop/x");
    unchanged(&shop, "http://10.0.0.5/shop-v42/x");
    unchanged(&shop, "http://10.0.0.5:8081/shop-v42/x");
    unchanged(&shop, "https://login.example.com/shop-v42/x");
    unchanged(&shop, "https://shop.example.com.evil/shop-v42/x");
    unchanged(&shop, "https://evil@shop.example.com/shop-v42/x");
    unchanged(&shop, "https://shop.example.com\\@evil/shop-v42/x");
    unchanged(&shop, "https:///shop-v42/x");
    unchanged(&shop, "///shop-v42/x");
    unchanged(&shop, "https:/shop-v42/x");
    unchanged(&shop, "javascript:location='/shop-v42'");
    unchanged(&shop, "ftp://shop.example.com/shop-v42");
    check(&from_root, "/shop-v42", "/");
    check(&from_root, "/shop-v42/x", "/x");
    check(&from_root, "/shop-v42?x", "/?x");
    check(&from_root, "/shop-v42;jsessionid=A", "/;jsessionid=A");
    check(&from_root, "/shop-v42//evil/x", "/.//evil/x");
    check(&from_root, "/shop-v42/\\evil/x", "/./\\evil/x");
    check(&from_root, "/shop-v42/\t/evil/x", "/./\t/evil/x");
    check(&from_root, "https://shop.example.com/shop-v42//x", "https://shop.example.com//x");
    unchanged(&from_root, "/login");
    check(&to_root, "/", "/shop/");
    check(&to_root, "/x", "/shop/x");
    check(&to_root, "http://10.0.0.5:8080/x", "https://shop.example.com/shop/x");
    unchanged(&to_root, "//evil/x");
    unchanged(&to_root, "/\\evil/x");
    unchanged(&to_root, "/../x");
    unchanged(&PathMap::new("/shop", "/shop"), "/shop/x");
}

#[test]
fn hosts_with_ports_and_brackets_are_compared_whole() {
    let check = |host: &str, backend: &str, value: &str, expected: &str| {
        let side = PublicSide { scheme: b"http", host: host.as_bytes(), backend: backend.as_bytes() };
        assert_eq!(text(&shop().location_to_public(value.as_bytes(), &side)), expected);
    };
    check("localhost:8080", "[::1]:9080", "http://[::1]:9080/shop-v42", "http://localhost:8080/shop");
    check("localhost:8080", "[::1]:80", "http://[::1]/shop-v42", "http://localhost:8080/shop");
    check("[::1]", "127.0.0.1:80", "http://[::1]:80/shop-v42", "http://[::1]:80/shop");
    check("localhost:8080", "127.0.0.1:80", "http://localhost:8080/shop-v42", "http://localhost:8080/shop");
    check("localhost:8080", "127.0.0.1:80", "http://localhost/shop-v42", "http://localhost/shop-v42");
    check("localhost:8080", "127.0.0.1:80", "http://127.0.0.1:/shop-v42", "http://localhost:8080/shop");
    check("", "", "http:///shop-v42", "http:///shop-v42");
    check("", "127.0.0.1:80", "http://127.0.0.1/shop-v42", "http://127.0.0.1/shop-v42");
}

#[test]
fn the_url_of_a_refresh_is_mapped_and_nothing_else() {
    let side = PublicSide { scheme: b"https", host: b"shop.example.com", backend: b"10.0.0.5:8080" };
    let check = |value: &str, expected: &str| {
        assert_eq!(text(&shop().refresh_to_public(value.as_bytes(), &side)), expected, "{value}");
    };
    check("5; url=/shop-v42/x", "5; url=/shop/x");
    check("5;URL=/shop-v42", "5;URL=/shop");
    check("5, url = /shop-v42/x", "5, url = /shop/x");
    check("0; url='/shop-v42/x' ", "0; url='/shop/x' ");
    check("0; url=\"http://10.0.0.5:8080/shop-v42/x\"", "0; url=\"https://shop.example.com/shop/x\"");
    check("0; /shop-v42/x", "0; /shop/x");
    check("0; url=/shop-v42/x  ", "0; url=/shop/x  ");
    check("0; url=/other", "0; url=/other");
    check("0; url=cart", "0; url=cart");
    check("5", "5");
    check("5;", "5;");
    check("", "");
}

#[test]
fn a_cookie_path_is_mapped_and_the_rest_of_the_line_is_not_touched() {
    let check = |map: &PathMap, line: &str, expected: &str| {
        let mapped = map.set_cookie_to_public(line.as_bytes());
        assert_eq!(text(&mapped), expected, "{line}");
        assert_eq!(matches!(mapped, Cow::Borrowed(_)), line == expected, "{line}");
    };
    let (shop, from_root, to_root) = (shop(), from_root(), to_root());
    check(&shop, "S=a; Path=/shop-v42; HttpOnly", "S=a; Path=/shop; HttpOnly");
    check(&shop, "S=a;path = /shop-v42/ ;  Secure", "S=a;path = /shop/;  Secure");
    check(&shop, "S=a; Path=/shop-v42/admin", "S=a; Path=/shop/admin");
    check(&shop, "S=a; Path=/shop-v42; Path=/; Path=/shop-v42/x", "S=a; Path=/shop; Path=/; Path=/shop/x");
    for line in ["S=a; Path=/", "S=a", "S=a; Path", "S=a; Path=", "S=a; Path=/shop-v42x", "S=a; Path=/shop", "Path=/shop-v42", ""] {
        check(&shop, line, line);
    }
    check(&from_root, "S=a; Path=/shop-v42", "S=a; Path=/");
    check(&from_root, "S=a; Path=/shop-v42/; Secure", "S=a; Path=/; Secure");
    check(&to_root, "S=a; Path=/", "S=a; Path=/");
    check(&to_root, "S=a; Path=/admin", "S=a; Path=/shop/admin");
}

#[test]
fn what_was_mapped_maps_back() {
    let mut dice = Xorshift(0x9a7);
    let pieces = ["/shop", "/", "x", ";jsessionid=A", "?", "%2e", ".", "%2f", "/shop-v42", "\\", "//", "#", "é"];
    let maps = [shop(), from_root(), to_root(), PathMap::new("/shop", "/shop"), PathMap::new("/", "/")];
    let mut mapped_once = 0;
    for _ in 0..20_000 {
        let target: String = (0..dice.below(6)).map(|_| dice.pick(&pieces)).collect();
        let (target, wild) = (format!("/shop{target}"), dice.octets(20, b"/shop-v42.%2e;"));
        for map in &maps {
            for target in [target.as_bytes(), &wild] {
                let Ok(there) = map.to_backend(target) else { continue };
                let back = map.to_public(&there);
                // A root has no bare form: `/shop` and `/shop/` are both `/` there, and come back with the slash.
                let bare = map.backend.is_root() && map.public.rest(target).is_some_and(|rest| !rest.starts_with(b"/"));
                if !bare {
                    assert_eq!(back.escape_ascii().to_string(), target.escape_ascii().to_string(), "{map:?}");
                    mapped_once += 1;
                }
            }
        }
    }
    assert!(mapped_once > 10_000);
}

#[test]
fn no_header_makes_it_panic() {
    let mut dice = Xorshift(0x10c);
    for _ in 0..20_000 {
        let value = dice.octets(40, b"http://a:80/shop-v42;?#\\ url='=Path");
        let host = dice.octets(6, b"a:80[]");
        let side = PublicSide { scheme: b"http", host: &host, backend: b"a:80" };
        for map in [shop(), from_root(), to_root()] {
            map.location_to_public(&value, &side);
            map.refresh_to_public(&value, &side);
            map.set_cookie_to_public(&value);
        }
    }
}
