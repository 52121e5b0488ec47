-- Numbers figures, tables and sections, and makes "Figure 2" of @fig:name, "Table 1" of @tbl:name and "Section 3" of
-- @sec:name. Runs before citeproc, which would take them for citations. A reference to nothing ends the run.

local words = { fig = "Figure", tbl = "Table", sec = "Section" }
local numbers = {}

local function kind_of(identifier)
  return identifier:match("^(%a+):")
end

local function count(document)
  local counts = { fig = 0, tbl = 0 }
  local function counted(element)
    local kind = kind_of(element.identifier)
    if counts[kind] then
      counts[kind] = counts[kind] + 1
      numbers[element.identifier] = tostring(counts[kind])
    end
  end
  document:walk({ Figure = counted, Table = counted })

  local levels = {}
  for _, block in ipairs(document.blocks) do
    if block.t == "Header" and not block.classes:includes("unnumbered") then
      levels[block.level] = (levels[block.level] or 0) + 1
      for deeper = block.level + 1, #levels do
        levels[deeper] = nil
      end
      numbers[block.identifier] = table.concat(levels, ".")
    end
  end
end

local function reference(cite)
  local identifier = cite.citations[1].id
  local word = words[kind_of(identifier)]
  if not word then
    return nil
  end
  local number = numbers[identifier]
  if not number then
    error("no " .. word:lower() .. " is called @" .. identifier .. "; correct the reference or add it.", 0)
  end
  if FORMAT:match("latex") then
    return pandoc.RawInline("latex", word .. "~\\ref{" .. identifier .. "}")
  end
  return pandoc.Link(word .. "\u{a0}" .. number, "#" .. identifier)
end

-- LaTeX and Typst number captions themselves, in the same order; HTML does not.
local function caption(element)
  local number = numbers[element.identifier]
  local first = element.caption.long[1]
  if FORMAT:match("html") and number and first then
    local label = words[kind_of(element.identifier)] .. "\u{a0}" .. number .. "."
    first.content:insert(1, pandoc.Strong(label))
    first.content:insert(2, pandoc.Space())
  end
  return element
end

function Pandoc(document)
  count(document)
  return document:walk({ Cite = reference, Figure = caption, Table = caption })
end
