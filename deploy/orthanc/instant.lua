-- Hands each mammogram to Fourview as soon as Orthanc has stored it: the quickest way, at the price of one association for each image.
-- stable.lua is the default. Load one of the two, never both.
--
-- Orthanc calls this also for a duplicate that it throws away, so an image may go out more than once; Fourview keeps the first.

MODALITY = 'fourview'  -- the entry in Orthanc's "DicomModalities"

-- MG: the images. KO: Key Objects, by which a technologist rejects an image after the fact (IHE IOCM). A Key Object may arrive before
-- the images that it is about, so all of them go; Fourview ignores what is not about mammograms.
FORWARDED = { MG = true, KO = true }

function OnStoredInstance(instanceId, tags, metadata, origin)
   if not FORWARDED[tags['Modality']] then return end
   -- A modified or anonymised copy made inside Orthanc is not a new acquisition.
   if origin['RequestOrigin'] == 'Lua' then return end
   if metadata['ModifiedFrom'] ~= nil or metadata['AnonymizedFrom'] ~= nil then return end

   local configuration = RestApiGet('/modalities/' .. MODALITY .. '/configuration')
   if configuration == nil then
      print('fourview: there is no "' .. MODALITY .. '" in "DicomModalities": instance ' .. instanceId .. ' is not sent')
      return
   end
   if origin['RemoteAet'] == ParseJson(configuration)['AET'] then return end  -- Fourview's own result

   -- Synchronous would stop all of Orthanc's events until Fourview has answered. No numbers in this table: DumpJson writes them as
   -- floats, which Orthanc refuses.
   RestApiPost('/modalities/' .. MODALITY .. '/store', DumpJson({ Resources = { instanceId }, Synchronous = false }, true))
end
