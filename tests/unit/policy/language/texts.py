"""Texts that are easy to read wrongly, for comparing with Cedar's own parser."""

from __future__ import annotations

EXPRESSIONS = r"""
true
1
--1
----1
-----1
!!!!true
!!!!!true
!-1
-!true
-9223372036854775808
9223372036854775808
--9223372036854775808
-(9223372036854775808)
-9223372036854775808.a
-1.a
00012
1_000
1.5
1a
1in [1]
principal["a b"]
principal[a]
principal["a", "b"]
principal[]
principal.if
principal["if"]
principal.principal
principal.permit
principal.__cedar
principal has if
principal has "if"
principal has a.b.c
principal has a.if
principal has "a".b
principal has a["b"]
principal has (a)
principal has a has b
principal has a.b()
principal like "
principal has "
principal["
{": 1}
A::"
principal has a + 1
principal has a+["b"]
principal has a - 1
principal like "a" * 1
principal is A + 1
principal is A in B::"x" + 1
1 + principal has a
principal.a.b["c"].d
principal.contains
principal.contains(1)
principal.contains()
principal.contains(1, 2)
principal.contains(1,)
principal.isEmpty()
principal.isEmpty(1)
principal.getTag("a")
principal.hasTag("a")
principal.unknown(1)
principal.ip("a")
ip("1.1.1.1")
ip()
ip(1, 2)
ip("a",)
unknownFunction("a")
decimal("1.0").lessThan(decimal("2.0"))
lessThan(1, 2)
ip("a").isIpv4(1)
ip("a").isInRange()
A::ip("a")
datetime("x").offset(duration("1d"))
toDate(1)
contains(1, 2)
if true then 1 else 2
if true then 1
1 + if true then 1 else 2
true && if true then true else false
(if true then 1 else 2) + 1
if if true then true else false then 1 else 2
1 < 2 < 3
1 == 2 == 3
(1 == 2) == 3
1 + 2 - 3 * 4
principal.a * principal.b
1 = 2
1 / 2
1 % 2
true and true
1 in 2 in 3
principal is A::B
principal is A in B::"x"
principal is A in principal.b
principal is "A"
principal is if
principal is A in B::"x" in C::"y"
principal is A == true
principal is A && true
principal like "a*"
principal like "a\*"
principal like a
principal like "a" like "b"
principal like "\q"
"\*"
"\q"
"\n\r\t\\\0\'\""
"\x7f"
"\x80"
"\u{41}"
"\u{}"
"\u{110000}"
"\u{d800}"
"\u{0000041}"
"\u{4_1}"
"\u{_41}"
A::"b"
A::B::"c"
A::"b"::"c"
A :: "b"
A::B
if::"b"
A::if::"b"
principal::"a"
permit::"a"
__cedar::"a"
A::__cedar::"b"
A::""
A::"\*"
[]
[1,]
[,]
[1 2]
{}
{a: 1,}
{"a b": 1}
{a: 1, a: 2}
{a: 1, "a": 2}
{if: 1}
{"if": 1}
{1: 1}
{a = 1}
()
((1))
principal.
principal..a
principal.1
principal[0]
[1].contains(1)
{a: 1}["a"]
?principal
?unknown
principal /* c */
"a" "b"
'a'
true; true
true //x
é
"é"
principal.é
"
1 <> 2
1 === 2
1 => 2
! = 2
1 --1
[1]-1
!(!(!(!(!(true)))))
-(-(-(-(-(1)))))
""".strip().split("\n")

SCOPES = r"""
principal, action, resource
principal, action, resource,
principal, action
principal, resource, action
principal, action, resource, context

principal == A::"b", action, resource
principal == ?principal, action, resource
principal == ?resource, action, resource
principal in A::"b", action, resource
principal in ?principal, action, resource
principal in [A::"b"], action, resource
principal == (A::"b"), action, resource
principal in ((A::"b")), action, resource
principal is A, action, resource
principal is A::B in C::"d", action, resource
principal is A in (C::"d"), action, resource
principal is A in ?principal, action, resource
principal is A == B::"c", action, resource
principal is ?principal, action, resource
principal in A, action, resource
principal == "a", action, resource
principal != A::"b", action, resource
principal.a == A::"b", action, resource
principal has a, action, resource
(principal), action, resource
principal, action == Action::"a", resource
principal, action == A::Action::"a", resource
principal, action == B::"a", resource
principal, action in Action::"a", resource
principal, action in [], resource
principal, action in [Action::"a", Action::"b",], resource
principal, action in ([Action::"a"]), resource
principal, action in [(Action::"a")], resource
principal, action in [B::"a"], resource
principal, action is Action, resource
principal, action in ?action, resource
principal, action == ?principal, resource
principal, action in [[Action::"a"]], resource
principal, action, resource == ?resource
principal, action, resource == ?principal
principal, action, resource is A in ?resource
principal is __cedar, action, resource
principal == if::"a", action, resource
?principal, action, resource
principal == A::"b" && true, action, resource
principal in action, action, resource
principal == -1, action, resource
principal == A::"b".c, action, resource
""".strip().split("\n")

HEAD = "permit (principal, action, resource)"

WHOLE = [
    "", ";", " // x", HEAD, f"{HEAD};;", f"Permit{HEAD[6:]};", f"{HEAD}; forbid{HEAD[6:]};", f"{HEAD} {HEAD};",
    f"@a {HEAD};", f"@a() {HEAD};", f'@a("b") {HEAD};', f'@a("b", "c") {HEAD};', f"@a(b) {HEAD};",
    f'@a("b") @a("c") {HEAD};', f"@a @b {HEAD};", f"@if {HEAD};", f"@permit {HEAD};", f"@__cedar {HEAD};",
    f'@"a" {HEAD};', f"@1 {HEAD};", f"@ a {HEAD};", f'@a("\\*") {HEAD};', f"@a::b {HEAD};", f"{HEAD} @a;",
    f"{HEAD} when {{}};", f"{HEAD} when {{ true }} when {{ false }} unless {{ true }};", f"{HEAD} when true;",
    f"{HEAD} when {{ true }}, unless {{ false }};", f"{HEAD} when {{ true; }};", f"{HEAD} when {{ true, }};",
    f"{HEAD} when {{ ?principal == principal }};", f"{HEAD} when {{ {{a: 1}} }};", f"{HEAD} when {{ a: 1 }};",
    f"{HEAD} advice {{ true }};", f"{HEAD[:-1]};", f"\ufeff{HEAD};", f"permit\u00a0{HEAD[6:]};",
    f"permit\u2028{HEAD[6:]};", f"permit\x0b{HEAD[6:]};", f"permit\x1c{HEAD[6:]};", f"permit\0{HEAD[6:]};",
    f"permit\u200b{HEAD[6:]};", f"permit\x85{HEAD[6:]};", f"permit\u180e{HEAD[6:]};", f"permit // c\r{HEAD[6:]};",
    f"permit // c\u2028{HEAD[6:]};", f"permit/**/{HEAD[6:]};", f'{HEAD} when {{ "a\nb;" == "c" }};',
    f'{HEAD} when {{ "// no" == "\\\\" }}; // ; "', f'{HEAD} when {{ "\0" == "\U0001f511" }};',
]  # fmt: skip

TRICKY = [*(f"{HEAD} when {{ {text} }};" for text in EXPRESSIONS), *(f"permit ({text});" for text in SCOPES), *WHOLE]
