"""The parts of the report as HTML text. Nothing in it is fetched from anywhere.

Everything that comes from a run (names of classes and files, configs) is escaped here.
"""

import base64
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rtune.display import console

_MAX_SIDE = 480  # of a picture in the report, in pixels
_MAX_STRIP = 1600  # of several side by side

# The policy makes the browser itself refuse every request, and complain in its console.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

# Of curves, on a light ground.
COLORS = ("#1f6fb4", "#c2570c", "#1b8a5a", "#8d4bb0", "#a3841a", "#b3315f", "#127a86", "#7a5a3c")

_STYLE = """
:root{color-scheme:light dark;--back:#fff;--card:#f6f6f4;--text:#1d1d1b;--soft:#62625e;
--edge:#dcdcd8;CURVES
--good:#1b7a4b;--bad:#b3342c}
@media(prefers-color-scheme:dark){:root{--back:#161615;--card:#20201e;--text:#e8e8e4;--soft:#a2a29b;
--edge:#383835;--s0:#6cb2f2;--s1:#f39a55;--s2:#58c794;--s3:#c696e6;--s4:#d9bd5a;--s5:#f080a4;--s6:#5ccbd6;
--s7:#cfa883;--good:#64cc98;--bad:#f0857c}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem clamp(.8rem,3vw,2.5rem) 4rem;max-width:1500px;
background:var(--back);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.6rem 0 .6rem}
h3{font-size:1rem;margin:.6rem 0 .3rem}
p{margin:.3rem 0;max-width:75ch}
.soft,figcaption{color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .8rem;text-align:right;border-bottom:1px solid var(--edge);white-space:nowrap}
th{font-weight:600;color:var(--soft)}
th:first-child,td:first-child{text-align:left;padding-left:0}
table.left th,table.left td{text-align:left;white-space:normal;overflow-wrap:anywhere}
table.left td:first-child{white-space:nowrap;vertical-align:top;color:var(--soft)}
@media(max-width:500px){th,td{padding:.25rem .45rem}}
.good{color:var(--good)}.bad{color:var(--bad)}
.tiles{display:flex;flex-wrap:wrap;gap:.7rem;margin:1.2rem 0}
.tile{background:var(--card);border-radius:8px;padding:.6rem 1rem;min-width:8.5rem}
.tile b{display:block;font-size:1.5rem;line-height:1.3;font-weight:600}
.columns{display:flex;flex-wrap:wrap;gap:0 3.5rem}
.columns>*{min-width:0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:.8rem}
figure{margin:0;min-width:0}
.chart{background:var(--card);border-radius:8px;padding:.7rem .7rem .3rem}
.chart figcaption b{color:var(--text);font-weight:600;margin-right:.4rem}
.chart svg{display:block;width:100%;height:auto;margin-top:.3rem}
.chart text{font-size:11.5px;fill:var(--soft)}
.chart .end{text-anchor:end}.chart .mid{text-anchor:middle}
.grid{stroke:var(--edge);fill:none}.mark{stroke:var(--soft);stroke-dasharray:2 3;fill:none}
.line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}
.line.thin{stroke-width:.9;stroke-opacity:.35}.shade{fill:var(--c);fill-opacity:.16}
.line.dash0{stroke-dasharray:5 4}.line.dash1{stroke-dasharray:2 3}
.line.dash2{stroke-dasharray:9 3 2 3}
circle{fill:var(--c)}
.band{fill:transparent}.band:hover{fill:var(--text);fill-opacity:.08}
.key{display:inline-block;margin-right:.8rem;font-size:.85rem}
.key i{display:inline-block;width:1.2em;margin-right:.35em;vertical-align:middle;
border-top:3px solid var(--c)}
.key i.dash0{border-top-style:dashed}.key i.dash1{border-top-style:dotted}
.key i.dash2{border-top-style:double}
.key i.soft{--c:var(--soft)}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}
.s5{--c:var(--s5)}.s6{--c:var(--s6)}.s7{--c:var(--s7)}
.cases{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr));gap:.8rem}
.case{background:var(--card);border-radius:8px;padding:.7rem;min-width:0}
.case>p{margin:0 0 .4rem;display:flex;flex-wrap:wrap;gap:0 1rem}
.row{display:flex;gap:.5rem;overflow-x:auto;scroll-snap-type:x proximity}
.row figure{flex:1 1 0;min-width:min(44vw,160px);scroll-snap-align:start}
.row figure:focus-within{flex:0 0 min(100%,480px)}
.row img{cursor:zoom-in;display:block;width:100%;height:auto;border-radius:4px}
.row dl{flex:3 1 0;min-width:min(60vw,300px);margin:0;font-size:.88rem;line-height:1.4}
.row dt{color:var(--soft);font-size:.82rem}
.row dd{margin:0;overflow-wrap:anywhere}
.row figcaption{font-size:.82rem;padding-top:.15rem}
.strip img{display:block;width:100%;min-width:55rem;height:auto;margin-top:1rem;border-radius:4px}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--soft)}
pre{background:var(--card);border-radius:8px;padding:.8rem;overflow-x:auto;font-size:.82rem}
.note{border-left:3px solid var(--edge);padding-left:.8rem;color:var(--soft)}
""".replace("CURVES", "".join(f"--s{place}:{color};" for place, color in enumerate(COLORS)))


class Case(NamedTuple):
  """One image with what was made of it: (caption, picture) side by side under a heading.

  `texts` are (label, lines) beside them, for what is read rather than seen.
  """

  heading: str
  pictures: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"]]]
  change: float | None = None  # of the reward, colored
  texts: Sequence[tuple[str, Sequence[str]]] = ()


def page(title: str, body: Sequence[str]) -> str:
  """A whole document."""
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
    f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
  )


def section(title: str, body: Sequence[str]) -> str:
  """A heading with what is below it; "" if that is nothing."""
  body = [part for part in body if part]
  return f"<section><h2>{html.escape(title)}</h2>{''.join(body)}</section>" if body else ""


def text(value: str) -> str:
  """As it is to be read."""
  return html.escape(value)


def paragraph(content: str, kind: str = "") -> str:
  """`kind` is "soft", "note" or nothing."""
  return f'<p class="{kind}">{html.escape(content)}</p>'


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: bool = False) -> str:
  """Cells are text, numbers, None for a dash, or Delta; `left` is for text, wrapped.

  Without `columns` there is no line of headings.
  """
  head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
  head = f"<tr>{head}</tr>" if columns else ""
  lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
  kind = ' class="left"' if left else ""
  return f'<div class="scroll"><table{kind}>{head}{lines}</table></div>'


class Delta(NamedTuple):
  """A difference, colored by its sign, unless more is not better."""

  value: float
  colored: bool = True

  def html(self) -> str:
    kind = "good" if self.value > 0.0005 else "bad" if self.value < -0.0005 else "soft"
    kind = kind if self.colored else "soft"
    return f'<span class="{kind}">{round(self.value, 3) + 0.0:+.3f}</span>'


def _cell(value: object) -> str:
  if value is None:
    return '<td class="soft">&ndash;</td>'
  if isinstance(value, Delta):
    return f"<td>{value.html()}</td>"
  return f"<td>{html.escape(value if isinstance(value, str) else _number(value))}</td>"


def _number(value: int | float) -> str:
  """Small ones with as many digits as their neighbors in a column."""
  return f"{value:.3f}" if isinstance(value, float) and abs(value) < 10 else console.number(value)


def tiles(values: Sequence[tuple[str, float | None, Delta | None]]) -> str:
  """(name, value, difference) as large numbers."""
  parts = []
  for name, value, change in values:
    shown = "&ndash;" if value is None else _number(value)
    delta = "" if change is None else change.html()
    parts.append(f'<div class="tile">{html.escape(name)}<b>{shown}</b>{delta}</div>')
  return f'<div class="tiles">{"".join(parts)}</div>'


def folded(summary: str, body: str, *, is_open: bool = False) -> str:
  """Something that opens on a click."""
  state = " open" if is_open else ""
  return f"<details{state}><summary>{html.escape(summary)}</summary>{body}</details>"


def code(content: str) -> str:
  return f"<pre>{html.escape(content)}</pre>"


def columns(parts: Sequence[str]) -> str:
  """Parts beside each other where there is room."""
  return f'<div class="columns">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'


def charts(figures: Sequence[str]) -> str:
  return f'<div class="charts">{"".join(figures)}</div>'


def cases(items: Sequence[Case]) -> str:
  """Images with their predictions; "" for none."""
  parts = []
  for item in items:
    change = "" if item.change is None else Delta(item.change).html()
    row = "".join(
      f"<figure>{_img(picture, f'{caption}, {item.heading}')}<figcaption>{html.escape(caption)}"
      "</figcaption></figure>"
      for caption, picture in item.pictures
    )
    texts = "".join(
      f"<dt>{html.escape(label)}</dt>" + "".join(f"<dd>{html.escape(line)}</dd>" for line in lines)
      for label, lines in item.texts
      if lines
    )
    texts = f"<dl>{texts}</dl>" if texts else ""
    parts.append(
      f'<div class="case"><p><span>{html.escape(item.heading)}</span>{change}</p>'
      f'<div class="row">{row}{texts}</div></div>'
    )
  return f'<div class="cases">{"".join(parts)}</div>' if parts else ""


def strip(picture: UInt8[np.ndarray, "h w 3"], what: str) -> str:
  """A wide picture over the whole page; where that is narrow it can be moved to and fro."""
  return f'<div class="scroll strip">{_img(picture, what, _MAX_STRIP)}</div>'


def _img(picture: UInt8[np.ndarray, "h w 3"], what: str, side: int = _MAX_SIDE) -> str:
  image = Image.fromarray(picture)
  image.thumbnail((side, side), Image.Resampling.LANCZOS)
  file = io.BytesIO()
  image.save(file, "WEBP", quality=85)
  data = base64.b64encode(file.getvalue()).decode()
  return (
    f'<img src="data:image/webp;base64,{data}" width="{image.width}" height="{image.height}" '
    f'tabindex="0" loading="lazy" alt="{html.escape(what)}">'
  )
