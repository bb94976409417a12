-- Hands mammograms to Fourview, a series at a time, when Orthanc calls the series stable ("StableAge" seconds without a new image).
-- The default: few transfers, each image once. instant.lua is quicker. Load one of the two, never both.
--
-- Series and not study: a study becomes stable again when Fourview's own result is stored in it, and all images would go out again.

MODALITY = 'fourview'  -- the entry in Orthanc's "DicomModalities"

-- MG: the images. KO: Key Objects, by which a technologist rejects an image after the fact (IHE IOCM). A Key Object may arrive before
-- the images that it is about, so all of them go; Fourview ignores what is not about mammograms.
FORWARDED = { MG = true, KO = true }

function OnStableSeries(seriesId, tags, metadata)
   if not FORWARDED[tags['Modality']] then return end
   -- A modified or anonymised copy made inside Orthanc is not a new acquisition.
   if metadata['ModifiedFrom'] ~= nil or metadata['AnonymizedFrom'] ~= nil then return end

   local configuration = RestApiGet('/modalities/' .. MODALITY .. '/configuration')
   if configuration == nil then
      print('fourview: there is no "' .. MODALITY .. '" in "DicomModalities": series ' .. seriesId .. ' is not sent')
      return
   end
   if metadata['RemoteAET'] == ParseJson(configuration)['AET'] then return end  -- Fourview's own result

   -- Synchronous would stop all of Orthanc's events until Fourview has answered. No numbers in this table: DumpJson writes them as
   -- floats, which Orthanc refuses. SendToModality() takes instances only, and hides failures.
   RestApiPost('/modalities/' .. MODALITY .. '/store', DumpJson({ Resources = { seriesId }, Synchronous = false }, true))
end
